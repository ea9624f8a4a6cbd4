"""How the figures of an evaluation are worded for people: names, digits, intervals, sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.labels import Labels
from training.page import NONE, below

FIGURES: Final = {
    "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1",
    "false_positive_rate": "false-positive rate", "roc_auc": "ROC AUC",
    "one_minus_auc_percent": "(1-AUC)%", "average_precision": "PR AUC", "lam_percent": "LAM%",
    **{f"recall_at_fpr_{rate:g}": f"recall at FPR {rate:.1%}" for rate in (0.001, 0.005, 0.01)},
    "loss": "loss", "brier": "Brier", "calibration_error": "calibration error (ECE)",
}  # fmt: skip


def headline(values: Mapping[str, Any], labels: Labels) -> list[str]:
    """What an administrator asks: how much good mail is lost, and how much else is caught."""
    intervals = values["intervals"]
    if "false_positive_rate" not in values:
        wrong = 1 - values["accuracy"]
        low, high = (1 - end for end in reversed(intervals["accuracy"]))
        return [f"Of 1,000 mails about {thousandth(wrong)} get a wrong verdict; between "
                f"{thousandth(low)} and {thousandth(high)}, with 95% confidence."]  # fmt: skip
    (right_no, false), (missed, caught) = values["confusion"]
    no, yes = labels.names
    good = "good mails (ham)" if no == "ham" else f"{no} mails"
    said = []
    for count, total, key, name, verb in (
        (false, right_no + false, "false_positive_rate", good, f"are lost, taken for {yes}"),
        (caught, missed + caught, "recall", f"{yes} mails", "are caught"),
    ):
        if not total:
            said.append(f"There are no {name} here, so it cannot be told how many {verb}.")
            continue
        low, high = map(thousandth, intervals[key])
        said.append(
            f"Of 1,000 {name} about {thousandth(values[key])} {verb}; between {low} and {high}, "
            f"with 95% confidence ({count:,} of {total:,} here)."
        )
    return said


def number(value: float | None) -> str:
    """Four digits, or a dash for none."""
    return NONE if value is None or math.isnan(value) else f"{value:.4f}"


def spread(interval: Sequence[float] | None) -> str:
    """The ends of an interval, or nothing."""
    low, high = ends(interval)
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def percents(interval: Sequence[float]) -> str:
    """The ends of an interval of shares."""
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def with_spread(value: float | None, interval: Sequence[float] | None) -> str:
    """A figure, and its interval below it."""
    between = spread(interval)
    return below(number(value), between) if between else number(value)


def ends(interval: Sequence[float] | None) -> tuple[float, float]:
    """Of an interval; NaN where there is none."""
    low, high = interval or (math.nan, math.nan)
    return low, high


def thousandth(share: float) -> str:
    """So many of a thousand: whole ones, below ten with a digit more."""
    many = 1000 * share
    return f"{many:.0f}" if many >= 10 or many == round(many) else f"{many:.1f}"
