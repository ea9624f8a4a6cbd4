"""What a person is told of training, message by message."""

import time
from typing import Any

import pytest

from training.config import resolve
from training.status import Status


class Watched:
    """A status, and all that it said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float | None, float | None]] = []
        self.notes: list[str] = []
        self.logged: list[tuple[dict[str, Any], int]] = []
        config = resolve(recipe="smoke", overrides=["optimizer.epochs=5"])
        self.status = Status(self, self.notes.append, config, 1000, self.log)

    def log(self, facts: dict[str, Any], seen: int) -> None:
        self.logged.append((facts, seen))

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self.lines.append((text, done, total))

    def started(self, epoch: int = 0, step: int = 0, seen: int = 0, workers: int = 2,
                passed_over: tuple[str, ...] = (), **facts: Any) -> None:  # fmt: skip
        self.status(
            {"kind": "started", "epoch": epoch, "step": step, "seen": seen, "workers": workers,
             "passed_over": list(passed_over)} | facts
        )  # fmt: skip

    def step(self, seen: int, seconds: float, **facts: Any) -> None:
        """`seconds` of training since the epoch began."""
        usual = {
            "epoch": 0, "step": 31, "steps": 303, "loss": 0.5, "norm": 1.0, "lr": 1e-5,
            "mails_per_second": 10.0, "tokens_per_second": 3509.4, "padding": 0.04,
            "step_seconds": 0.1, "mfu": 0.41,
        }  # fmt: skip
        self.status({"kind": "step", "seen": seen, "trained_seconds": seconds} | usual | facts)

    def epoch(self, epoch: int, seen: int, loss: float, f1: float = 0.9) -> None:
        self.status({"kind": "epoch", "epoch": epoch, "seen": seen,
                     "val_loss": loss, "val_f1": f1})  # fmt: skip


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_the_line_says_where_training_is_and_how_fast(watched: Watched) -> None:
    watched.started()
    watched.step(500, 50.0, loss=0.021)
    said = "loss 0.021 10 mails/s 3,509 tokens/s 4% padding MFU 41% 8 min left"
    assert watched.lines == [(f"epoch 1/5 step 31/303 {said}", 500, 5000)]
    watched.epoch(1, 1000, 0.1, 0.9719)
    watched.step(1500, 50.0, epoch=1)
    assert watched.lines[-1][0].startswith("epoch 2/5")
    assert watched.lines[-1][0].endswith("6 min left, validation F1 0.9719")


@pytest.mark.parametrize(
    ("speed", "left"), [(100.0, "45 s"), (10.0, "8 min"), (1.0, "75 min"), (0.5, "2.5 h")]
)
def test_the_time_left_follows_the_present_speed(watched: Watched, speed: float, left: str) -> None:
    watched.started()
    watched.step(500, 1.0, mails_per_second=speed)
    assert f" {left} left" in watched.lines[-1][0]


def test_the_loss_is_smoothed(watched: Watched) -> None:
    watched.started()
    watched.step(100, 1.0, loss=1.0)
    watched.step(200, 2.0, loss=0.0)
    assert "loss 0.900" in watched.lines[-1][0]


def test_a_start_from_scratch_is_no_news(watched: Watched) -> None:
    watched.started()
    assert watched.notes == []


def test_a_resumed_run_says_what_was_done_and_what_was_passed_over(watched: Watched) -> None:
    watched.started(step=120, seen=1920, passed_over=("checkpoint e000-s000150: damaged",))
    assert watched.notes == [
        "checkpoint e000-s000150: damaged",
        "goes on at epoch 1, step 121: 1,920 mails were trained on before",
    ]


def test_a_lost_worker_and_its_return_are_told(watched: Watched) -> None:
    watched.started()
    watched.step(1957, 9.0)
    watched.status({"kind": "lost", "ranks": [1], "reason": "its node died"})
    watched.started(step=120, seen=1920)
    watched.status({"kind": "lost", "ranks": [0, 1, 2], "reason": "killed"})
    watched.started(step=120, seen=1920, workers=1)
    watched.step(1921, 1.0)
    watched.status({"kind": "lost", "ranks": [], "reason": "their controller died"})
    watched.started(step=120, seen=1920, workers=1)
    assert watched.notes == [
        "worker 1 was lost: its node died",
        "2 workers are up again, from epoch 1, step 121: 37 mails are trained on again",
        "workers 0, 1 and 2 were lost: killed",
        "training goes on with 1 worker (2 before), from epoch 1, step 121: "
        "0 mails are trained on again",
        "the workers were lost: their controller died",
        "1 worker is up again, from epoch 1, step 121: 1 mail is trained on again",
    ]


def test_a_loss_before_the_first_start_is_told(watched: Watched) -> None:
    watched.status({"kind": "lost", "ranks": [0, 1], "reason": "killed"})
    watched.started()
    assert watched.notes[0] == "workers 0 and 1 were lost: killed"
    assert watched.notes[1].startswith("2 workers are up again, from epoch 1, step 1: 0 mails")


def test_a_note_is_passed_on(watched: Watched) -> None:
    watched.status({"kind": "note", "text": "storage is slow"})
    assert watched.notes == ["storage is slow"]


def test_steps_are_tracked_every_five_seconds_and_epochs_always(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watched.started()
    for seen, now in ((10, 1000.0), (20, 1004.0), (30, 1006.0)):  # noqa: B007
        watched.step(seen, seen / 10)
    watched.epoch(1, 1000, 0.1)
    watched.epoch(2, 2000, 0.2)
    assert [seen for _, seen in watched.logged] == [0, 10, 30, 1000, 2000]
    started, step, *_, epoch = (facts for facts, _ in watched.logged)
    assert started == {"workers": 2}
    assert (step["mfu"], step["padding"], step["loss"]) == (0.41, 0.04, 0.5)
    assert epoch == {"epoch": 2, "val_loss": 0.2, "val_f1": 0.9}


def test_the_closing_rate_is_all_mails_over_all_step_time(watched: Watched) -> None:
    watched.started()
    watched.step(100, 10.0, padding=0.1, mfu=0.2)  # 10 mails/s
    watched.step(900, 20.0, padding=0.2, mfu=0.4)  # 80 mails/s
    watched.epoch(1, 1000, 0.061, 0.9719)  # the last 100 mails have no time
    watched.step(1100, 10.0, epoch=1, padding=0.2, mfu=0.3)
    assert watched.status.rate == 1000 / 30
    assert watched.status.closing() == (
        "best epoch 1 of 5: validation loss 0.0610, F1 0.9719; 33 mails/s, 19% padding, MFU 30%"
    )


def test_steps_done_again_after_a_loss_are_time_and_mails(watched: Watched) -> None:
    watched.started(seen=100)
    watched.step(200, 10.0)
    watched.started(seen=100)
    watched.step(200, 30.0)
    assert watched.status.rate == 200 / 40


def test_nothing_to_train_is_said(watched: Watched) -> None:
    watched.started(epoch=5, seen=5000)
    assert watched.notes == ["all 5 epochs were trained before"]
    assert watched.status.closing() == "nothing was left to train"
    assert watched.status.rate == 0


def test_the_history_has_a_row_for_each_epoch_and_marks_the_best(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watched.started()
    watched.step(100, 1.0, loss=0.6)
    watched.step(200, 2.0, loss=0.4)
    now = 130.0
    watched.epoch(1, 1000, 0.3)
    now = 150.0
    watched.epoch(2, 2000, 0.3)
    scores = {"val_loss": 0.3, "val_f1": 0.9}
    assert watched.status.history == [
        {"epoch": 1, "train_loss": 0.5, "seconds": 30.0, "best": True} | scores,
        {"epoch": 2, "train_loss": None, "seconds": 20.0, "best": False} | scores,
    ]


def test_an_epoch_that_was_lost_is_told_of_once(watched: Watched) -> None:
    watched.started()
    watched.epoch(1, 1000, 0.3)
    watched.step(1500, 1.0, epoch=1, loss=0.7)
    watched.epoch(2, 2000, 0.2)
    watched.step(2500, 1.0, epoch=2, loss=0.1)
    watched.started(epoch=1, seen=1000)
    watched.step(1500, 1.0, epoch=1, loss=0.8)
    watched.epoch(2, 2000, 0.4)
    first, second = watched.status.history
    assert (first["epoch"], first["val_loss"], first["best"]) == (1, 0.3, True)
    assert (second["epoch"], second["val_loss"], second["best"]) == (2, 0.4, False)
    assert second["train_loss"] == 0.8


def test_an_epoch_before_the_resumption_may_be_the_best(watched: Watched) -> None:
    watched.started(epoch=2, seen=2000, best=0.1)
    watched.step(2500, 50.0, epoch=2)
    watched.epoch(3, 3000, 0.2)
    assert [row["best"] for row in watched.status.history] == [False]
    assert watched.status.closing().startswith("no epoch was better than those before; 10 mails/s")


def test_readings_of_the_machine_go_to_the_tracker_alone() -> None:
    watched = Watched()
    watched.started(seen=48)
    before = (len(watched.lines), len(watched.notes))
    watched.status({"kind": "system", "system/cpu_utilization_percentage": 50.0})
    assert watched.logged[-1] == ({"system/cpu_utilization_percentage": 50.0}, 48)
    assert (len(watched.lines), len(watched.notes)) == before
