"""`mailray models`: what the registry holds, and which version is served."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.commands.frame import Json, command
from training.home import Home

if TYPE_CHECKING:
    from training.bundle import Bundle
    from training.promotion import Move, Version

app = typer.Typer(
    help="What the registry holds, and which version is served.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Alias = Annotated[str, typer.Option(help="Which alias is moved.")]


@app.command("list")
def list_models(json_output: Json = False) -> None:
    """All models and their versions.

    Example: mailray models list
    """
    with command("models", json_output=json_output) as console:
        from training.promotion import models

        rows = models(Home.default())
        shown: RenderableType = _table(rows)
        if not rows:
            shown = "no model is registered; `mailray train` trains one"
        console.result(shown, {"versions": [asdict(row) for row in rows]})


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME", help="NAME, NAME@ALIAS, NAME:VERSION.")],
    json_output: Json = False,
) -> None:
    """One version, its champion by default: what it is, and where the alias has stood.

    Example: mailray models show mailray-spam@champion
    """
    with command("models", json_output=json_output) as console:
        from training.promotion import bundle_of, history, versions
        from training.registry import spelled

        home, wanted = Home.default(), spelled(model)
        rows = versions(home, wanted.name)
        steps = history(home, wanted.name, wanted.alias)
        bundle = bundle_of(home, model)
        [row] = [row for row in rows if row.version == bundle.version]
        facts = _facts(bundle)
        about = Table("model", str(wanted), box=None, header_style="bold")
        for key, value in facts.items():
            about.add_row(key.replace("_", " "), _shown(value))
        about.add_row(f"{wanted.alias} has been", ", ".join(steps) or "nowhere")
        console.result(
            Group(about, Text(), _table(rows)),
            asdict(row) | facts | {"trail": steps, "versions": [asdict(row) for row in rows]},
        )


@app.command()
def add(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle's directory.")],
    json_output: Json = False,
) -> None:
    """Register a bundle that was exported, or trained elsewhere; it is served once promoted.

    Example: mailray models add spam-int8
    """
    with command("models", json_output=json_output) as console:
        from training.promotion import whole
        from training.upload import add as upload

        with console.stage("add") as stage:
            stage.update(f"reading {bundle}")
            found = whole(bundle)
            stage.update(f"uploading {bundle}")
            version = upload(Home.default(), found)
            stage.update(f"{found.name}:{version}")
        console.result(
            f"{found.name} version {version}; `mailray models promote {found.name}:{version}` "
            "has it served",
            {"name": found.name, "version": version},
        )


@app.command()
def promote(
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="What is to be served.")],
    alias: Alias = "champion",
    force: Annotated[bool, typer.Option("--force", help="With other labels, too.")] = False,
    json_output: Json = False,
) -> None:
    """Move an alias to a version; servers that follow it change over without a pause.

    Example: mailray models promote mailray-spam:3
    """
    with command("models", json_output=json_output) as console:
        from training.promotion import promote as move
        from training.registry import ModelNotFound, spelled

        wanted = spelled(model)
        if wanted.version is None:
            raise ModelNotFound(f"{model}: name the version, as {wanted.name}:3")
        with console.stage("promote") as stage:
            stage.update(f"reading {wanted}")
            moved = move(Home.default(), wanted.name, wanted.version, alias, force=force)
            stage.update(str(wanted))
        console.result(_said(moved), asdict(moved))


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The model.")],
    alias: Alias = "champion",
    json_output: Json = False,
) -> None:
    """Move an alias back to the version that it stood at before; once more, one further back.

    Example: mailray models rollback mailray-spam
    """
    with command("models", json_output=json_output) as console:
        from training.promotion import rollback as back
        from training.registry import ModelNotFound, spelled

        wanted = spelled(name)
        if str(wanted.name) != name:
            raise ModelNotFound(f"{name}: name the model alone, as {wanted.name}")
        moved = back(Home.default(), name, alias)
        console.result(_said(moved), asdict(moved))


def _said(moved: "Move") -> str:
    where = f"{moved.name}@{moved.alias} is version {moved.version}"
    if moved.before is None:
        return f"{where}; the alias is new"
    if moved.before == moved.version:
        return f"{where}, as it was"
    return f"{where}, was {moved.before}"


def _facts(bundle: "Bundle") -> dict[str, Any]:
    test = bundle.metrics.get("test", {})
    return {
        "version": bundle.version,
        "path": str(bundle.path),
        "labels": list(bundle.labels),
        "any_number_of_labels": bundle.head.multi,
        "mail_text": bundle.mail_text_version,
        "reads_tokens": bundle.read_length,
        "test_accuracy": test.get("accuracy"),
        "test_roc_auc": test.get("roc_auc"),
        "operating_points": {
            point.name: point.threshold for point in bundle.points if point.threshold is not None
        },
    }


def _table(rows: "list[Version]") -> Table:
    table = Table("model", "version", "aliases", "ROC AUC", "registered", "run", box=None)
    for row in rows:
        at = datetime.fromtimestamp(row.registered, UTC)
        table.add_row(
            row.name, row.version, ", ".join(row.aliases),
            "" if row.roc_auc is None else f"{row.roc_auc:.4f}", f"{at:%Y-%m-%d %H:%M}", row.run,
        )  # fmt: skip
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items()) or "none"
    return "unknown" if value is None else str(value)
