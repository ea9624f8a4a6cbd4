"""Checkpoints: whole or not there, the newest good one found, storage that fails survived."""

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from training import checkpoint
from training.checkpoint import CheckpointError, State, Writer
from training.config import ModelConfig, OptimizerConfig
from training.model import MailModel, build
from training.optimizer import make_optimizer


@pytest.fixture
def model() -> MailModel:
    torch.manual_seed(0)
    return build(ModelConfig(name="tiny"), 2, 32)


def _save(writer: Writer, model: MailModel, *states: State) -> None:
    optimizer, schedule = make_optimizer(model, OptimizerConfig(), 10)
    for state in states:
        writer.save(model, optimizer, schedule, state)
    writer.wait()


def _states(count: int) -> Iterator[State]:
    return (State(epoch=1, step=10 * n, seen=160 * n) for n in range(1, count + 1))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(model: MailModel, tmp_path: Path) -> None:
    optimizer, schedule = make_optimizer(model, OptimizerConfig(), 10)
    model(torch.ones(2, 4, dtype=torch.int64), None).sum().backward()
    optimizer.step()
    schedule.step()
    saved = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = State(
        epoch=2, step=7, seen=99, best=0.5, stale=1, plan="x",
        epochs=({"epoch": 1, "val_loss": 0.6}, {"epoch": 2, "val_loss": 0.5}),
    )  # fmt: skip
    with Writer(tmp_path) as writer:
        writer.save(model, optimizer, schedule, state)
        with torch.no_grad():
            model.head.weight.add_(1)  # training goes on while it is written

    other = build(ModelConfig(name="tiny"), 2, 32)
    theirs, their_schedule = make_optimizer(other, OptimizerConfig(), 10)
    found = checkpoint.latest(tmp_path)
    assert found.path is not None
    assert checkpoint.read(found.path, other, theirs, their_schedule) == state
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, saved[name])
    ours, moments = optimizer.state_dict()["state"], theirs.state_dict()["state"]
    assert all(torch.equal(ours[k]["exp_avg"], moments[k]["exp_avg"]) for k in ours)
    assert their_schedule.get_last_lr() == schedule.get_last_lr()


def test_the_newest_two_and_the_best_are_kept(model: MailModel, tmp_path: Path) -> None:
    first, second, third, fourth = _states(4)
    with Writer(tmp_path) as writer:
        _save(writer, model, replace(first, validated=0.1), replace(second, validated=0.2))
        _save(writer, model, third, fourth)
    assert _names(tmp_path) == [first.name, third.name, fourth.name]
    assert checkpoint.best(tmp_path) == tmp_path / first.name
    checkpoint.keep_best(tmp_path)
    assert _names(tmp_path) == [first.name]
    assert checkpoint.best(tmp_path) == tmp_path / first.name


@pytest.mark.parametrize("file", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    model: MailModel, tmp_path: Path, file: str, damage: str
) -> None:
    first, second = _states(2)
    with Writer(tmp_path) as writer:
        _save(writer, model, first, second)
    victim = tmp_path / second.name / file
    content = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        half = len(content) // 2
        victim.write_bytes(content[:half] + (b"" if damage == "truncated" else b"x" * half))
    found = checkpoint.latest(tmp_path)
    assert found.path == tmp_path / first.name
    if (file, damage) != (checkpoint.STATE, "missing"):  # then it never was one
        assert found.passed_over
        assert second.name in found.passed_over[0]


def test_damaged_checkpoints_go_when_the_run_has_another(model: MailModel, tmp_path: Path) -> None:
    first, second, third = _states(3)
    with Writer(tmp_path) as writer:
        _save(writer, model, first, third)
        (tmp_path / third.name / checkpoint.MODEL).write_bytes(b"")
        _save(writer, model, second)
    assert _names(tmp_path) == [first.name, second.name]


def test_a_damaged_best_checkpoint_is_not_chosen(model: MailModel, tmp_path: Path) -> None:
    first, second = _states(2)
    with Writer(tmp_path) as writer:
        _save(writer, model, replace(first, validated=0.1), replace(second, validated=0.2))
    (tmp_path / first.name / checkpoint.MODEL).write_bytes(b"")
    assert checkpoint.best(tmp_path) == tmp_path / second.name


def test_what_a_killed_writer_left_is_no_checkpoint(model: MailModel, tmp_path: Path) -> None:
    (state,) = _states(1)
    with Writer(tmp_path) as writer:
        _save(writer, model, state)
    half = tmp_path / ".e001-s000020-0badcafe"
    half.mkdir()
    (half / checkpoint.MODEL).write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == (tmp_path / state.name, [])
    with Writer(tmp_path) as writer:
        _save(writer, model, replace(state, step=20))
    assert not half.exists()


def test_storage_that_fails_for_a_while_loses_nothing(
    model: MailModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _states(2)
    said: list[str] = []
    real = safetensors.torch.save_file
    left = [errno.EIO, errno.ENOSPC]

    def failing(*args: object) -> None:
        if left:
            raise OSError(left.pop(), "no luck")
        real(*args)  # type: ignore[arg-type]

    with Writer(tmp_path, said.append) as writer:
        _save(writer, model, first)
        monkeypatch.setattr(checkpoint, "save_file", failing)
        _save(writer, model, second)
    assert checkpoint.latest(tmp_path).path == tmp_path / second.name
    assert len(said) == 1
    assert "no luck" in said[0]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_storage_that_fails_for_good_names_the_last_good_checkpoint(
    model: MailModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second, third = _states(3)
    writer = Writer(tmp_path, patience=0.0 if number == errno.ENOSPC else 60.0)
    _save(writer, model, first)

    def failing(*args: object) -> None:
        raise OSError(number, "no luck")

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(CheckpointError, match=f"no luck; the last good .*{first.name}"):
        _save(writer, model, second, third)
    assert _names(tmp_path) == [first.name]


def test_a_checkpoint_says_of_what_it_is_made(model: MailModel, tmp_path: Path) -> None:
    (state,) = _states(1)
    with Writer(tmp_path) as writer:
        _save(writer, model, state)
    place = tmp_path / state.name
    assert _names(place) == sorted([checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE])
    facts = json.loads((place / checkpoint.STATE).read_text())
    assert facts["files"][checkpoint.MODEL] == checkpoint.weights_digest(place)
