"""`mailray data fetch|prepare|show|clean`."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.commands.frame import Address, ConfigFile, Json, Overrides, both, command
from cluster.console import Console
from cluster.session import ray_session
from training import corpus
from training.config import TrainConfig, resolve
from training.home import Home
from training.schema import ConfigError

if TYPE_CHECKING:
    from training.mails import Mails
    from training.quality import Finding

app = typer.Typer(no_args_is_help=True, help="Get mail, prepare it, look at it.")
_BINS = 12
_BAR = 40
_EXAMPLES = 5

Recipe = Annotated[str | None, typer.Option(help="The recipe whose data it is.")]


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The corpus: spamassassin.")],
    folder: Annotated[
        Path | None, typer.Option("--from", help="A folder that has it, groups as sub-folders.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Fetch a public corpus, verified and whole.

    Example: mailray data fetch spamassassin
    """
    with command("data-fetch", json_output=json_output) as console:
        if name != "spamassassin":
            raise ConfigError(f"no corpus {name!r}; there is: spamassassin")
        place = fetched(console, folder)
        console.result(f"{place}", {"path": place, "mails": sum(corpus.GROUPS.values())})


def fetched(console: Console, folder: Path | None = None) -> Path:
    """The corpus, in a stage of its own."""
    with console.stage("corpus") as stage:
        place = corpus.fetch(
            Home.default().corpora / "spamassassin",
            folder,
            lambda origin, done, total: stage.update(f"{done:,} mails of {origin}", done, total),
        )
        groups = ", ".join(f"{group} {count}" for group, count in corpus.GROUPS.items())
        stage.update(f"{sum(corpus.GROUPS.values()):,} mails: {groups}")
    return place


@app.command()
def prepare(
    overrides: Overrides = None,
    recipe: Recipe = None,
    config_file: ConfigFile = None,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Read, tokenize, group and split a source; training then starts at once.

    Example: mailray data prepare data.source=my/mail data.split=time
    """
    with command("data-prepare", json_output=json_output) as console:
        config = _config(recipe, config_file, overrides)
        mails, findings = _survey(console, config, address)
        console.result(_overview(mails, findings, config), _facts(mails, findings))


@app.command()
def show(
    overrides: Overrides = None,
    recipe: Recipe = None,
    config_file: ConfigFile = None,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Counts, labels, lengths, groups, and five mails as the model sees them.

    Example: mailray data show data.source=my/mail
    """
    with command("data-show", json_output=json_output) as console:
        config = _config(recipe, config_file, overrides)
        mails, findings = _survey(console, config, address)
        from training.weights import tokenizer

        words = tokenizer(config.model.name)
        rows = mails.on("all")
        chosen = rows[np.linspace(0, len(rows) - 1, _EXAMPLES).astype(int)] if len(rows) else rows
        table = mails.cache.table().select(["id", "label", "tokens"]).take(chosen).to_pylist()
        examples = [
            {"id": row["id"], "label": row["label"], "text": words.decode(row["tokens"])}
            for row in table
        ]
        shown = [
            Text.assemble((f"\n{e['id']}  {e['label']}\n", "bold"), e["text"]) for e in examples
        ]
        console.result(
            Group(_overview(mails, findings, config), _histogram(mails.lengths[rows]), *shown),
            _facts(mails, findings) | {"examples": examples},
        )


@app.command()
def clean(
    sides: Annotated[
        bool, typer.Option("--splits", help="Also forget which side each mail is on.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Delete the token caches; corpora, runs and models stay.

    Example: mailray data clean
    """
    with command("data-clean", json_output=json_output) as console:
        home = Home.default()
        freed = 0
        for place in (home.tokens, *([home.splits] if sides else [])):
            if place.is_dir():
                freed += sum(f.stat().st_size for f in place.rglob("*") if f.is_file())
                shutil.rmtree(place)
        console.result(f"{freed / 1e6:,.1f} MB freed", {"bytes": freed})


def _config(recipe: str | None, file: Path | None, overrides: list[str] | None) -> TrainConfig:
    both(recipe, file)
    return resolve(recipe=recipe, file=file, overrides=overrides or [])


def _survey(
    console: Console, config: TrainConfig, address: str | None
) -> "tuple[Mails, list[Finding]]":
    from training.mails import survey
    from training.weights import tokenizer

    with ray_session(address=address, cpus=2):
        return survey(config.data, tokenizer(config.model.name), Home.default(), console)


def _facts(mails: "Mails", findings: "list[Finding]") -> dict[str, Any]:
    from training.splits import SPLITS

    return {
        "path": mails.cache.path,
        "mails": mails.cache.mails,
        "unreadable": mails.cache.unreadable,
        "reused": mails.cache.reused,
        "splits": {name: len(mails.on(name)) for name in SPLITS},
        "left_out": mails.left_out,
        "groups": mails.groups.count,
        "near_duplicates": mails.groups.alike,
        "in_threads": mails.groups.threads,
        "in_campaigns": mails.groups.campaigns,
        "findings": [{"what": f.what, "count": f.count, "examples": f.examples} for f in findings],
    }


def _overview(mails: "Mails", findings: "list[Finding]", config: TrainConfig) -> RenderableType:
    from training.splits import SPLITS

    labels = config.data.label_set
    counts = Table("split", *labels.names, "mails", box=None)
    for name in (*SPLITS, "all"):
        rows = mails.on(name)
        each = labels.indicator(mails.labels[rows]).sum(0)
        counts.add_row(name, *(f"{n:,}" for n in each), f"{len(rows):,}")
    groups = mails.groups
    tied = Table("kept together", "mails", box=None)
    tied.add_row("near-duplicates", f"{groups.alike:,}")
    tied.add_row("threads", f"{groups.threads:,}")
    tied.add_row("campaigns of one sender", f"{groups.campaigns:,}")
    tied.add_row("left out, tying two sides", f"{mails.left_out:,}")
    odd = Table("to look at", "mails", "such as", box=None)
    for finding in findings:
        odd.add_row(finding.what, f"{finding.count:,}", ", ".join(finding.examples))
    parts: list[RenderableType] = [counts, Text(), tied]
    return Group(*parts, *((Text(), odd) if findings else ()))


def _histogram(lengths: np.ndarray) -> RenderableType:
    if not len(lengths):
        return Text()
    counts, edges = np.histogram(lengths, _BINS)
    rows = Table("tokens", "mails", "", box=None)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "█" * round(_BAR * count / counts.max())
        rows.add_row(f"{low:.0f} to {high:.0f}", f"{count:,}", bar)
    return Group(Text(), rows)
