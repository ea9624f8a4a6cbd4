"""`mailray compare`: is this model really better than that one?"""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.commands.evaluation import file_to_be, located, one_of
from cluster.commands.frame import Address, Json, command
from cluster.session import ray_session
from training.home import Home
from training.wording import FIGURES

_LISTED = 10
"""Mails that changed sides, shown of each side."""
_NEITHER = (
    "neither: no difference that these mails show. Each interval and p stands by itself; the "
    "answer above is about accuracy and ROC AUC, each at half of 5%."
)
_SPELLINGS = "A bundle directory, NAME, NAME@ALIAS or NAME:VERSION."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SPELLINGS)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SPELLINGS)],
    source: Annotated[
        str | None,
        typer.Option(help="Mail that neither was trained on, as config key data.source."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of the models' own source: test or validation.")
    ] = "test",
    output: Annotated[
        Path | None, typer.Option(help="A Parquet file for the mails that changed sides.")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 2,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Compare two models on the same mails: figures in pairs, errors, mails that changed sides.

    Example: mailray compare mailray-spam:2 mailray-spam:1 --output changed.parquet
    """
    with command("compare", json_output=json_output) as console:
        one_of("--split", split, "test", "validation")
        one_of("--precision", precision, "auto", "bf16", "fp32")
        if output is not None:
            file_to_be("--output", output)
        from training import comparison
        from training.bundle import load
        from training.pairs import check, score_both, thresholds

        bundles = load(located(a)), load(located(b))
        check(*bundles)
        with ray_session(address=address, cpus=workers + 2):
            scored = score_both(
                *bundles, Home.default(), console,
                source=source, split=split, precision=precision, workers=workers,  # type: ignore[arg-type]
            )  # fmt: skip
        with console.stage("comparison") as stage:
            values = comparison.compare(*scored, thresholds(*bundles))
            stage.update(f"{len(values['changed']):,} mails changed sides")
        if output is not None:
            comparison.write_changed(values["changed"], output)
        said = comparison.answer(values, f"A ({a})", f"B ({b})")
        models = {
            letter: {"model": bundle.name, "version": bundle.version, "path": bundle.path}
            for letter, bundle in zip("AB", bundles, strict=True)
        }
        console.result(shown(values, said), {"answer": said} | models | values)


def shown(values: dict[str, Any], answer: str) -> RenderableType:
    """The answer, and what it rests on as tables."""
    parts: list[RenderableType] = [Text(answer), Text(), _figures(values["figures"])]
    parts += [Text(_NEITHER, "dim"), Text(), _verdicts(values["mcnemar"], "verdicts")]
    for point in values["points"]:
        title = f"at {point['name']}"
        parts += [Text(), _figures(point["figures"], title), Text()]
        parts.append(_verdicts(point["mcnemar"], f"verdicts {title}"))
    parts += [part for model in "AB" for part in _changed(values["changed"], model)]
    return Group(*parts)


def _figures(rows: list[dict[str, Any]], title: str = "") -> Table:
    table = Table(title, "A", "B", "A - B", "95% interval", "p", "better", box=None)
    for row in rows:
        if math.isnan(row["difference"]):
            continue
        low, high = row["interval"]
        table.add_row(
            FIGURES[row["figure"]], f"{row['a']:.4f}", f"{row['b']:.4f}",
            f"{row['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{row['p']:.2g}",
            row["better"] or "neither",
        )  # fmt: skip
    return table


def _verdicts(counts: dict[str, Any], title: str) -> Table:
    """McNemar's two-by-two table."""
    table = Table(title, "B right", "B wrong", "McNemar's exact p", box=None)
    table.add_row("A right", f"{counts['both_right']:,}", f"{counts['only_a']:,}")
    table.add_row(
        "A wrong", f"{counts['only_b']:,}", f"{counts['both_wrong']:,}", f"{counts['p']:.2g}"
    )
    return table


def _changed(rows: list[dict[str, Any]], model: str) -> list[RenderableType]:
    """The mails on which one model alone is right."""
    mine = [row for row in rows if row["right"] == model]
    if not mine:
        return []
    of = f"first {_LISTED} of {len(mine):,}" if len(mine) > _LISTED else f"{len(mine)}"
    table = Table(f"right with {model} alone ({of})", "label", "p by A", "p by B", box=None)
    for row in mine[:_LISTED]:
        table.add_row(Text(row["id"]), Text(row["label"]), f"{row['p_a']:.4f}", f"{row['p_b']:.4f}")
    return [Text(), table]
