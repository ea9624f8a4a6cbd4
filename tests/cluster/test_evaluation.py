"""The tables of `mailray evaluate`, as a terminal shows them."""

import io
import math
from typing import Any

import numpy as np
from rich.console import Console, Group

from cluster.commands.evaluation import SLICES_SHOWN, operating, tables
from training.curve import Curve
from training.operating import OperatingPoint, told


def _row(**facts: Any) -> dict[str, Any]:
    intervals = {"accuracy": (0.8, 0.95), "recall": (0.7, 0.99)}
    nothing = {"false_positive_rate": (math.nan, math.nan)}
    figures = {"accuracy": 0.9, "recall": 0.875, "false_positive_rate": math.nan}
    return facts | figures | {"intervals": intervals | nothing}


def _shown(more: dict[str, list[dict[str, Any]]]) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=160).print(Group(*tables(more)))
    return [" ".join(line.split()) for line in text.getvalue().splitlines() if line.strip()]


def test_slices_show_the_worst_and_count_the_others() -> None:
    rows = [_row(by="group", slice=f"g{n}", mails=1000 - n, small=n > 20) for n in range(25)]
    head, first, *_, last = _shown({"slices": rows})
    assert head == "worst slices accuracy recall false-positive rate"
    assert first == "group: g0 1,000 mails 0.9000 (0.800 to 0.950) 0.8750 (0.700 to 0.990)"
    assert last == f"and {25 - SLICES_SHOWN} more, 4 of them of few mails: --json"


def test_disguises_show_how_many_mails_they_changed() -> None:
    rows = [_row(disguise="clean", changed=0), _row(disguise="leetspeak", changed=601)]
    _, clean, leet = _shown({"robustness": rows})
    assert clean == "clean 0.9000 (0.800 to 0.950) 0.8750 (0.700 to 0.990)"
    assert leet.startswith("leetspeak 601 0.9000")


def test_what_was_not_asked_for_is_not_shown() -> None:
    assert tables({}) == []


def test_a_point_says_so_where_a_side_has_no_mail() -> None:
    scores = np.array([0.2, 0.9], np.float32)
    rows = told(
        [OperatingPoint("lenient", 0.01, 0.5, 299, 400)], Curve.of(np.ones(2, bool), scores)
    )
    text = io.StringIO()
    Console(file=text, width=160).print(operating(rows))
    said = text.getvalue()
    assert "no such mail here" in said
    assert "0.5000, above" in said
    assert "nan" not in said
