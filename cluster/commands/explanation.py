"""`mailray classify --explain`: the words and facts that speak for a label, on the terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.evaluation import located

_TOP = 12
"""Words of a mail that are shown."""
_SECONDS = 30.0
"""For one mail; a model of many layers and a long mail take a while."""
_BAR = 16
_WIDEST = 60
"""Characters of a word, which may be a link."""


def explained(model: str, raws: Mapping[int, bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The explanation of each mail that can be read, by its number, as `POST /v1/explain` has it.

    Raises:
        BundleError, ModelNotFound: there is no such model.
        MailError: as `training.mail.mail_text`.
        NotExplainableError: of this model there is none.
    """
    from serving.explanation import Explainer
    from training.bundle import load
    from training.mail import mail_text, text_options

    bundle = load(located(model))
    explainer = Explainer(bundle)
    for number, raw in raws.items():
        text = mail_text(raw, text_options(bundle.extras))
        found = explainer.explain(text, seconds=_SECONDS)
        yield number, asdict(found) | {"top": [asdict(span) for span in found.top(_TOP)]}


def shown(file: Path, verdict: Mapping[str, Any], explanation: Mapping[str, Any]) -> Group:
    """A mail's verdict, its facts, and its heaviest words with a bar each.

    What the mail says is text, never markup of the terminal's.
    """
    label = explanation["label"]
    heading = Text.assemble(
        (", ".join(verdict.get("labels", [verdict["label"]])) or "none", "bold"),
        f"  {verdict['probability']:.4f}  {file}",
    )
    scale = f"for (+) or against (-) {label}, in log-odds: "
    scale += f"{explanation['baseline']:+.2f} without a word, {explanation['score']:+.2f} with all"
    if not explanation["complete"]:
        scale += f"; not exact, the time was up ({explanation['gap']:+.2f} is missing)"
    rows = Table(box=None, show_header=False, pad_edge=False)
    for finding in explanation["findings"]:
        rows.add_row(*_row(finding, explanation), "", Text(finding["text"]))
    for span in explanation["top"]:
        words = span["text"] if len(span["text"]) <= _WIDEST else f"{span['text'][:_WIDEST]}..."
        rows.add_row(*_row(span, explanation), span["section"], Text(words))
    return Group(heading, Text(scale, "dim"), *([rows] if rows.row_count else []))


def _row(item: Mapping[str, Any], explanation: Mapping[str, Any]) -> tuple[str, Text]:
    weight = item["weight"]
    listed = [*explanation["findings"], *explanation["top"]]
    most = max((abs(other["weight"]) for other in listed), default=0.0) or 1.0
    bar = Text("\u2501" * round(abs(weight) / most * _BAR), "red" if weight > 0 else "green")
    return f"{weight:+.2f}", bar
