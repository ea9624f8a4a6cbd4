"""What `mailray classify --explain` shows on a terminal."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.commands.explanation import shown

VERDICT = {"label": "spam", "labels": ["spam"], "probability": 0.9876}


def span(text: str, weight: float) -> dict[str, Any]:
    return {"section": "body", "text": text, "weight": weight}


def explanation(**changes: Any) -> dict[str, Any]:
    facts = {
        "label": "spam",
        "score": 4.25,
        "baseline": 1.5,
        "gap": 0.01,
        "complete": True,
        "findings": [{"section": "list", "text": "Sent through a mailing list", "weight": -0.5}],
        "top": [span("prize", 2.0), span("noon", -1.0)],
    }
    return facts | changes


def screen(file: str = "a.eml", **changes: Any) -> list[str]:
    console = Console(width=200, record=True, file=StringIO())
    console.print(shown(Path(file), VERDICT, explanation(**changes)))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_verdict_facts_and_words_stand_below_each_other_with_bars_of_their_weight() -> None:
    heading, scale, *rows = screen()
    assert heading.split() == ["spam", "0.9876", "a.eml"]
    assert "+1.50 without a word, +4.25 with all" in scale
    assert [row.split()[0] for row in rows] == ["-0.50", "+2.00", "-1.00"]
    assert [row.count("\u2501") for row in rows] == [4, 16, 8]
    assert rows[0].endswith("Sent through a mailing list")
    assert rows[1].split()[-2:] == ["body", "prize"]


def test_what_a_mail_says_is_no_markup() -> None:
    rows = screen(file="[bold]a.eml", top=[span("[red]x[/red]", 1.0)])
    assert "[bold]a.eml" in rows[0]
    assert rows[-1].endswith("[red]x[/red]")


def test_a_long_word_is_cut_and_what_is_not_exact_says_so() -> None:
    rows = screen(top=[span("x" * 500, 1.0)], complete=False, gap=0.7, findings=[])
    assert "the time was up (+0.70 is missing)" in " ".join(rows[:3])
    assert rows[-1].endswith("x" * 60 + "...")


def test_a_mail_without_a_word_has_no_rows() -> None:
    assert len(screen(top=[], findings=[])) == 2
