"""The table that closes a training, as a terminal of 80 columns shows it."""

import io
from typing import Any

from rich.console import Console

from cluster.commands.training import course


def _epoch(epoch: int, best: bool, loss: float | None = 0.5) -> dict[str, Any]:
    return {
        "epoch": epoch, "best": best, "train_loss": loss, "val_loss": 0.25, "val_accuracy": 0.99,
        "val_f1": 0.98, "val_roc_auc": 0.97, "seconds": 61.24,
    }  # fmt: skip


def test_a_row_is_an_epoch_and_the_last_one_is_the_test() -> None:
    test = {"loss": 0.3, "accuracy": 0.91, "f1": 0.92, "roc_auc": float("nan")}
    shown = io.StringIO()
    Console(file=shown, width=80).print(
        course([_epoch(9, best=False, loss=None), _epoch(10, best=True)], test)
    )
    head, *rows = shown.getvalue().splitlines()
    words = "epoch train loss validation loss accuracy F1 ROC AUC seconds"
    assert " ".join(head.split()) == words
    assert [row.split() for row in rows] == [
        ["9", "0.2500", "0.9900", "0.9800", "0.9700", "61.2"],
        ["10,", "best", "0.5000", "0.2500", "0.9900", "0.9800", "0.9700", "61.2"],
        ["test", "0.3000", "0.9100", "0.9200", "nan"],
    ]
