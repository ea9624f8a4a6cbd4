"""`mailray evaluate`, and the figures of an evaluation as tables."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.commands.baselines import beside
from cluster.commands.frame import Address, Json, command
from cluster.console import Console
from cluster.session import ray_session
from training.home import Home
from training.schema import ConfigError
from training.wording import FIGURES

if TYPE_CHECKING:
    from training.bundle import Bundle
    from training.config import DataConfig
    from training.evaluation import Scored
    from training.labels import Labels


def evaluate(
    model: Annotated[
        str, typer.Option(help="A bundle directory, NAME, NAME@ALIAS or NAME:VERSION.")
    ] = "mailray-spam",
    source: Annotated[
        str | None, typer.Option(help="Other mail, as config key data.source; all of it.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of the model's own source: train, validation, test or all.")
    ] = "test",
    predictions: Annotated[
        Path | None, typer.Option(help="A Parquet file for the scores of each mail.")
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="By kinds of mail too, the worst first.")
    ] = False,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Under each disguise of spammers too.")
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, bf16, fp32 or int8.")] = "auto",
    runtime: Annotated[
        str, typer.Option(help="torch, onnx, openvino, or auto: the fastest here.")
    ] = "torch",
    workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 2,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Measure a model on mail: accuracy, precision, recall, F1, ROC AUC, confusion matrix.

    Example: mailray evaluate --model mailray-spam@champion --split test
    """
    with command("evaluate", json_output=json_output) as console:
        one_of("--split", split, "train", "validation", "test", "all")
        one_of("--precision", precision, *PRECISIONS)
        one_of("--runtime", runtime, *RUNTIMES)
        if predictions is not None:
            file_to_be("--predictions", predictions)
        from training.bundle import load
        from training.evaluation import data_of, write_predictions
        from training.evaluation import evaluate as score
        from training.scorer import Scorer

        bundle = load(located(model))
        if runtime == "auto":  # once, or each worker would choose for itself
            chosen = Scorer(bundle, precision, "auto", threads=1)  # type: ignore[arg-type]
            runtime, precision = chosen.runtime, chosen.precision
            del chosen
        with ray_session(address=address, cpus=workers + 2):
            scored = score(
                bundle, Home.default(), console,
                source=source, split=split, precision=precision, runtime=runtime, workers=workers,  # type: ignore[arg-type]
            )  # fmt: skip
            if predictions is not None:
                write_predictions(scored, predictions)
            data = data_of(bundle, source)
            more: dict[str, list[dict[str, Any]]] = {}
            if slices:
                more["slices"] = _slices(console, bundle, data, scored)
            if robustness:
                more["robustness"] = _robustness(
                    console, bundle, data, scored, precision, runtime, workers
                )
        values = scored.report(bundle.points)
        title = f"{split} mails" if source is None else f"mails of {source}"
        shown = [report(values, bundle.label_set, title)]
        known = bundle.metrics.get("baselines", {})
        same = all(baseline["mails"] == values["mails"] for baseline in known.values())
        if source is None and split == "test" and known and same:
            shown += beside({"test": values, "baselines": known})
            values = values | {"baselines": known}
        console.result(
            Group(*shown, *tables(more)),
            {
                "model": bundle.name,
                "version": bundle.version,
                "path": bundle.path,
                "runtime": runtime,
            }
            | values
            | more,
        )


def _slices(
    console: Console, bundle: "Bundle", data: "DataConfig", scored: "Scored"
) -> list[dict[str, Any]]:
    from training.slices import details, slices

    table = details(data, Home.default(), scored.ids, console)
    return slices(scored, table, bundle.points)


def _robustness(
    console: Console,
    bundle: "Bundle",
    data: "DataConfig",
    scored: "Scored",
    precision: str,
    runtime: str,
    workers: int,
) -> list[dict[str, Any]]:
    from training.robustness import robustness

    return robustness(
        bundle, data, Home.default(), scored.ids, precision, workers, console, runtime  # type: ignore[arg-type]
    )  # fmt: skip


def located(model: str) -> Path:
    """The bundle directory that a path or a registry spelling names."""
    if Path(model).is_dir():
        return Path(model)
    from training.registry import resolve as find

    return find(Home.default(), model)


PRECISIONS = ("auto", "bf16", "fp32", "int8")
RUNTIMES = ("auto", "torch", "onnx", "openvino")

SLICES_SHOWN = 20
"""On a terminal; `--json` has them all."""


def report(values: dict[str, Any], labels: "Labels", title: str) -> RenderableType:
    """The figures of an evaluation as tables."""
    figures = Table(
        f"{values['mails']:,} {title}", "", "95% interval", box=None, header_style="bold"
    )
    for key, name in FIGURES.items():
        if key in values and not math.isnan(values[key]):
            low, high = values.get("intervals", {}).get(key, (math.nan, math.nan))
            spread = "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
            figures.add_row(name, f"{values[key]:.4f}", spread)
    classes = Table("class", "precision", "recall", "f1", "mails", box=None)
    for label in labels.names:
        row = values["classes"][label]
        classes.add_row(
            label, *(f"{row[k]:.4f}" for k in ("precision", "recall", "f1-score")),
            f"{row['support']:.0f}",
        )  # fmt: skip
    heads = ("right no", "wrong yes", "wrong no", "right yes") if labels.multi else labels.names
    confusion = Table("class" if labels.multi else "true \\ taken for", *heads, box=None)
    for label, counts in zip(labels.names, values["confusion"], strict=True):
        confusion.add_row(label, *map(str, np.ravel(counts)))
    parts: list[RenderableType] = [figures, Text(), classes, Text(), confusion]
    if "points" in values:
        parts += [Text(), operating(values["points"])]
    return Group(*parts)


def operating(rows: list[dict[str, Any]]) -> Table:
    """What each operating point did."""
    table = Table("operating point", "keeps FPR", "threshold", "FPR here", "recall here", box=None)
    for row in rows:
        keeps = f"at most {row['rate']:.1%}"
        if row["threshold"] is None:
            table.add_row(
                row["name"], keeps, "none",
                f"needs {row['needed']:,} good mails to validate on, had {row['had']:,}",
            )  # fmt: skip
            continue
        (_, most), (least, _) = (row["intervals"][k] for k in ("false_positive_rate", "recall"))
        table.add_row(
            row["name"], keeps, f"{row['threshold']:.4f}",
            f"{row['false_positive_rate']:.2%} ({row['false']} of {row['no']:,}), below {most:.2%}"
            if row["no"] else "no such mail here",
            f"{row['recall']:.4f}, above {least:.4f}" if row["yes"] else "no such mail here",
        )  # fmt: skip
    return table


def tables(more: dict[str, list[dict[str, Any]]]) -> list[RenderableType]:
    """The slices and the disguises of an evaluation, where they were asked for."""
    parts: list[RenderableType] = []
    if rows := more.get("slices"):
        table = _figures("worst slices", "", rows[:SLICES_SHOWN], lambda row: (
            f"{row['by']}: {row['slice']}", f"{row['mails']:,} mails{', few' * row['small']}",
        ))  # fmt: skip
        parts += [Text(), table]
        if left := rows[SLICES_SHOWN:]:
            few = sum(row["small"] for row in left)
            parts.append(Text(f"and {len(left)} more, {few} of them of few mails: --json"))
    if rows := more.get("robustness"):
        table = _figures("disguise", "changed", rows, lambda row: (
            row["disguise"], f"{row['changed']:,}" if row["changed"] else "",
        ))  # fmt: skip
        parts += [Text(), table]
    return parts


def _figures(
    name: str,
    about: str,
    rows: list[dict[str, Any]],
    said: Callable[[dict[str, Any]], tuple[str, str]],
) -> Table:
    keys = [key for key in ("accuracy", "recall", "false_positive_rate") if key in rows[0]]
    table = Table(name, about, *(FIGURES[key] for key in keys), box=None)
    for row in rows:
        table.add_row(*said(row), *(_with_interval(row, key) for key in keys))
    return table


def _with_interval(row: dict[str, Any], key: str) -> str:
    low, high = row["intervals"].get(key, (math.nan, math.nan))
    if math.isnan(row[key]):
        return ""
    return f"{row[key]:.4f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def file_to_be(option: str, file: Path) -> None:
    """Refuse a file that could not be written, before the work that it is to have."""
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{option}: there is no directory {file.parent}")
    if file.is_dir():
        raise ConfigError(f"{option}: {file} is a directory; name a file")


def one_of(option: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise ConfigError(f"{option}: one of {', '.join(allowed)}, got {value!r}")
