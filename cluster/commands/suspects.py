"""`mailray data suspects`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.data import Recipe
from cluster.commands.evaluation import file_to_be, located
from cluster.commands.frame import Address, ConfigFile, Json, Overrides, both, command
from cluster.session import ray_session
from training.config import resolve
from training.home import Home
from training.schema import ConfigError

_SHOWN = 20
_ENDINGS = (".parquet", ".csv")


def suspects(
    overrides: Overrides = None,
    recipe: Recipe = None,
    config_file: ConfigFile = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of this model's validation and test mails, by what it makes of them."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The whole list: a file that ends in .parquet or .csv.")
    ] = None,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Mails whose label is probably wrong, worst first; no label is changed.

    Without a model all mails are judged, by linear models that have not learned from them.

    Example: mailray data suspects data.source=my/mail --output suspects.csv
    """
    with command("data-suspects", json_output=json_output) as console:
        both(recipe, config_file)
        if model is not None and (overrides or recipe or config_file):
            raise ConfigError("--model has a config of its own; give it alone, or no model")
        if output is not None:
            _writable(output)
        config = resolve(recipe=recipe, file=config_file, overrides=overrides or [])
        home = Home.default()
        with ray_session(address=address, cpus=4):
            if model is None:
                from training.mails import survey
                from training.suspects import cross_validated
                from training.weights import tokenizer

                mails, _ = survey(config.data, tokenizer(config.model.name), home, console)
                scored = cross_validated(config.data, home, mails, console)
            else:
                from training.bundle import load
                from training.suspects import unseen

                scored = unseen(load(located(model)), home, console)
        from training.suspects import suspects as find
        from training.suspects import write

        found = find(scored)
        if output is not None:
            write(found, output)
        judged = len(scored.ids)
        console.result(
            _shown(found, judged, output), {"mails": judged, "file": output, "suspects": found}
        )


def _writable(file: Path) -> None:
    if file.suffix not in _ENDINGS:
        raise ConfigError(f"--output: a file that ends in {' or '.join(_ENDINGS)}, got {file}")
    file_to_be("--output", file)


def _shown(found: list[dict[str, Any]], judged: int, output: Path | None) -> Group:
    counted = Text(f"{len(found):,} of {judged:,} mails are suspected of a wrong label")
    if output is not None:
        counted.append(f": {output}")
    elif len(found) > _SHOWN:
        counted.append("; --output FILE.csv has them all")
    if not found:
        return Group(counted)
    table = Table("rank", "id", "label", "likelier", "probability of label", box=None)
    for row in found[:_SHOWN]:
        table.add_row(
            str(row["rank"]), row["id"], row["label"] or "none", row["likelier"] or "none",
            f"{row['probability']:.4f}",
        )  # fmt: skip
    return Group(table, Text(), counted)
