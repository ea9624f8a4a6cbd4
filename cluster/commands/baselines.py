"""A model beside its baselines, as a table."""

import math
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_RECALL = "recall_at_fpr_0.005"


def beside(metrics: dict[str, Any]) -> list[RenderableType]:
    """What a bundle's metrics say of model and baselines, after an empty line; [] without them."""
    if not metrics.get("baselines"):
        return []
    rows = {"this model": metrics["test"]} | metrics["baselines"]
    of_two = not math.isnan(metrics["test"][_RECALL])
    heads = ["test mails", "accuracy", "ROC AUC", "95% interval", "recall at FPR 0.5%"]
    table = Table(*heads[: 5 if of_two else 3], box=None)
    for name, values in rows.items():
        figures = [f"{values['accuracy']:.4f}", f"{values['roc_auc']:.4f}"]
        if of_two:
            low, high = values["intervals"]["roc_auc"]
            figures += [f"{low:.4f} to {high:.4f}", f"{values[_RECALL]:.4f}"]
        table.add_row(name, *figures)
    return [Text(), table]
