"""The tables of a comparison, as a terminal of 100 columns shows them."""

import io

import numpy as np
from rich.console import Console

from cluster.commands.comparison import shown
from training.comparison import answer, compare
from training.evaluation import Scored
from training.labels import Labels


def _lines(values: dict[str, object], said: str) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=100).print(shown(values, said))
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_the_answer_is_first_and_every_part_is_there() -> None:
    chance = np.random.default_rng(0)
    truth = np.repeat([0, 1], [300, 200])
    ids = [f"box[{at}]" for at in range(500)]
    spam = [np.clip(truth * 0.5 + chance.normal(0.25, by, 500), 0, 1) for by in (0.15, 0.35)]
    a, b = (
        Scored(Labels(("ham", "spam")), ids, truth, np.stack([1 - s, s], 1).astype(np.float32))
        for s in spam
    )
    values = compare(a, b, {"lenient": (0.7, 0.9)})
    lines = _lines(values, answer(values, "A (new)", "B (old)"))
    assert lines[0].startswith("Yes: on these 500 mails A (new) is better than B (old) in accuracy")
    heads = [
        "A B A - B 95% interval p better", "verdicts B right B wrong McNemar's exact p",
        "at lenient A B A - B 95% interval p better",
        "verdicts at lenient B right B wrong McNemar's exact p",
    ]  # fmt: skip
    assert all(head in lines for head in heads)
    for name in ("accuracy", "ROC AUC", "recall at FPR 0.5%", "loss", "Brier"):
        assert any(line.startswith(f"{name} ") and line.endswith(" A") for line in lines), name
    only = values["mcnemar"]["only_a"]
    assert f"right with A alone (first 10 of {only}) label p by A p by B" in lines
    first = next(row for row in values["changed"] if row["right"] == "A")
    assert any(line.startswith(f"{first['id']} ") for line in lines), "brackets are no markup"


def test_what_has_no_value_is_not_shown() -> None:
    truth = np.zeros(20, np.int64)
    scores = np.tile(np.array([[0.9, 0.1]], np.float32), (20, 1))
    ham = Scored(Labels(("ham", "spam")), [str(at) for at in range(20)], truth, scores)
    values = compare(ham, ham, {"lenient": (0.7, 0.9)})
    lines = _lines(values, answer(values, "A", "B"))
    assert lines[0].startswith("Not shown: on these 20 mails A and B differ by no more than chance")
    assert not any(line.startswith(("ROC AUC", "recall")) or "nan" in line for line in lines)
    assert any(line.startswith("false-positive rate 0.0000 0.0000") for line in lines)
