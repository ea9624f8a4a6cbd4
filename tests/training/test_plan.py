"""The batch plan: each mail once, the same for every world size, anywhere resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import Batch, stream
from training.plan import VALIDATE, Plan, Rows, epoch_plan, evaluation_plan, share
from training.tensors import Reader

READER = Reader(0, 64, 0.75, 0)


@settings(max_examples=50)
@given(
    mails=st.integers(1, 300),
    size=st.integers(1, 20),
    window=st.integers(1, 8),
    world=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_mail_is_in_one_slice_of_an_epoch(
    mails: int, size: int, window: int, world: int, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(2, 99, mails).astype(np.int32)
    plan = epoch_plan(np.arange(mails), lengths, size, window, seed, 0)
    assert all(len(batch) <= size for batch in plan)
    slices = [share(batch, lengths, rank, world) for batch in plan for rank in range(world)]
    assert sorted(np.concatenate(slices).tolist()) == list(range(mails))
    rows = Rows(np.arange(mails), np.arange(0), lengths, lengths)
    assert Plan(rows, size, window, seed, 1).steps() == [len(plan)]


@settings(max_examples=50)
@given(mails=st.integers(1, 200), tokens=st.integers(1, 2000), seed=st.integers(0, 5))
def test_a_token_budget_bounds_every_batch_but_one_of_a_single_mail(
    mails: int, tokens: int, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(2, 99, mails).astype(np.int32)
    rows = Rows(np.arange(mails), np.arange(0), lengths, lengths)
    plan = Plan(rows, 16, 4, seed, 2, tokens)
    for epoch, steps in enumerate(plan.steps()):
        batches = plan.epoch(epoch)
        assert len(batches) == steps
        assert sorted(np.concatenate(batches).tolist()) == list(range(mails))
        padded = [len(batch) * lengths[batch].max() for batch in batches]
        assert all(p <= tokens or len(b) == 1 for p, b in zip(padded, batches, strict=True))


def test_a_plan_of_other_mails_has_another_fingerprint() -> None:
    plan = _plan()
    assert plan.fingerprint == _plan().fingerprint
    assert replace(plan, seed=1).fingerprint != plan.fingerprint
    fewer = replace(plan.rows, train=plan.rows.train[1:])
    assert replace(plan, rows=fewer).fingerprint != plan.fingerprint


def test_slices_differ_by_one_mail_at_most() -> None:
    lengths = np.arange(100, dtype=np.int32)
    sizes = [len(share(np.arange(17), lengths, rank, 3)) for rank in range(3)]
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = np.ones(64, np.int32)
    rows = np.arange(64)

    def order(seed: int, epoch: int) -> list[int]:
        batches = epoch_plan(rows, lengths, 8, 4, seed, epoch)
        return [int(row) for row in np.concatenate(batches)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_batches_are_of_one_length_within_a_window() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 512).astype(np.int32)
    plan = epoch_plan(np.arange(512), lengths, 16, 32, 0, 0)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    assert padded < 1.05 * lengths.sum()


def test_an_evaluation_covers_every_mail_over_any_world() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 1001).astype(np.int32)
    for world in (1, 2, 3):
        parts = [
            b
            for rank in range(world)
            for b in evaluation_plan(np.arange(1001), lengths, rank, world)
        ]
        assert sorted(np.concatenate(parts).tolist()) == list(range(1001))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Forty mails in two files; mail n has n + 1 tokens, all of them n."""
    for part in range(2):
        numbers = range(part * 20, part * 20 + 20)
        tokens = pa.array([[n] * (n + 1) for n in numbers], pa.list_(pa.int32()))
        table = pa.table({"tokens": tokens})
        with pa.ipc.new_file(str(tmp_path / f"part-{part:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return tmp_path


def _plan() -> Plan:
    lengths = np.arange(1, 41, dtype=np.int32)
    labels = (np.arange(40) % 2).astype(np.int32)
    return Plan(Rows(np.arange(33), np.arange(33, 40), lengths, labels), 8, 2, 0, 2)


@pytest.mark.usefixtures("ray_session")
def test_the_stream_is_the_plan_with_the_tokens_of_its_mails(cache: Path) -> None:
    plan = _plan()
    batches = [list(stream(plan, cache, READER, rank, 2, 0, 0)) for rank in range(2)]
    for epoch in range(2):
        trained = [
            b for of_rank in batches for b in of_rank if (b.epoch, b.step >= 0) == (epoch, True)
        ]
        tested = [
            b for of_rank in batches for b in of_rank if (b.epoch, b.step) == (epoch, VALIDATE)
        ]
        assert sorted(np.concatenate([b.rows for b in trained]).tolist()) == list(range(33))
        assert sorted(np.concatenate([b.rows for b in tested]).tolist()) == list(range(33, 40))
    for batch in (b for of_rank in batches for b in of_rank):
        _check_tokens(batch)
    steps = [(b.epoch, b.step) for b in batches[0]]
    assert steps == [(b.epoch, b.step) for b in batches[1]]  # no rank waits for another
    assert any(len(b.rows) == 0 for b in batches[0] + batches[1])  # a batch of one mail, two ranks


@pytest.mark.usefixtures("ray_session")
def test_a_rank_without_a_mail_to_validate_takes_part_with_a_stand_in(cache: Path) -> None:
    """Else the other ranks would wait for its scores for ever."""
    lengths = np.arange(1, 41, dtype=np.int32)
    plan = Plan(Rows(np.arange(30), np.array([31, 35]), lengths, lengths % 2), 8, 2, 0, 1)
    batches = [list(stream(plan, cache, READER, rank, 3, 0, 0)) for rank in range(3)]
    tested = [[b for b in of_rank if b.step == VALIDATE] for of_rank in batches]
    assert [[b.rows.tolist() for b in of_rank] for of_rank in tested] == [[[31]], [[35]], [[]]]
    assert [len(part.labels) for part in tested[2][0].parts] == [1], "a stand-in's own"


@pytest.mark.usefixtures("ray_session")
def test_a_stream_resumes_where_it_is_told(cache: Path) -> None:
    plan = _plan()
    whole = [(b.epoch, b.step, b.rows.tolist()) for b in stream(plan, cache, READER, 0, 1, 0, 0)]
    rest = [(b.epoch, b.step, b.rows.tolist()) for b in stream(plan, cache, READER, 0, 1, 1, 2)]
    assert rest == whole[whole.index(rest[0]) :]
    assert rest[0][:2] == (1, 2)


@pytest.mark.usefixtures("ray_session")
def test_a_slice_too_large_is_cut_into_parts_of_the_same_mails(cache: Path) -> None:
    plan = _plan()
    whole = list(stream(plan, cache, READER, 0, 1, 1, 0))
    cut = list(stream(plan, cache, READER, 0, 1, 1, 0, 100))
    assert [sorted(b.rows.tolist()) for b in cut] == [sorted(b.rows.tolist()) for b in whole]
    assert any(len(batch.parts) > 1 for batch in cut)
    for batch in cut:
        assert all(part.ids.numel() <= 100 or len(part.rows) == 1 for part in batch.parts)
        _check_tokens(batch)


def _check_tokens(batch: Batch) -> None:
    for part in batch.parts:
        assert part.real == sum(row + 1 for row in part.rows.tolist())
        for at, row in enumerate(part.rows.tolist()):
            words = part.ids[at] if part.mask is None else part.ids[at][part.mask[at] == 1]
            assert words.tolist() == [row] * (row + 1)
            assert part.labels[at] == row % 2
