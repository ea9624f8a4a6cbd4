"""`mailray train`, `mailray tune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.baselines import beside
from cluster.commands.evaluation import report
from cluster.commands.frame import Address, ConfigFile, Json, Overrides, both, command
from cluster.console import Console
from cluster.session import ray_session
from training.config import TrainConfig, resolve
from training.home import Home
from training.schema import ConfigError

if TYPE_CHECKING:
    from training.completion import Result
    from training.run import Run
    from tuning.record import Record


def train(
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="spam-minilm (the default), spam-bert or smoke.")
    ] = None,
    config_file: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="Of the run; made from the date.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the named or the latest unfinished run.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config and stop.")
    ] = False,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Fine-tune a model on mail, test it, and register it.

    Example: mailray train --recipe spam-minilm optimizer.epochs=3 scaling.workers=2
    """
    with command("train", json_output=json_output) as console:
        both(recipe, config_file)
        config = resolve(recipe=recipe, file=config_file, overrides=overrides or [])
        if print_config:
            tree = config.model_dump(mode="json")
            return console.result(yaml_text(tree), tree)
        same = resume and name is not None and not (recipe or config_file or overrides)
        run = named_run(None if same else config, name, resume=resume)
        config = run.config
        with ray_session(address=address, cpus=cpus(config)):
            result = trained(console, run)
        console.result(
            Group(
                report(result.bundle.metrics["test"], config.data.label_set, "test mails"),
                *beside(result.bundle.metrics),
                Text(f"\n{result.model} version {result.version}: {result.bundle.path}"),
            ),
            result.facts(),
        )


def cpus(config: TrainConfig) -> int:
    """What a local Ray must offer: the workers, and something for Ray Data beside them."""
    return config.scaling.most * config.scaling.cpus + 2


def named_run(config: TrainConfig | None, name: str | None, *, resume: bool) -> "Run":
    """A run, new or to be gone on with; without a config as it was begun. Nothing is written."""
    from training.run import new_run, unfinished_run

    if resume or config is None:
        return unfinished_run(Home.default(), config, name)
    return new_run(Home.default(), config, name)


def trained(console: Console, run: "Run") -> "Result":
    """What a run gives; how it went is told on the terminal."""
    from training.fit import fit

    console.note(f"run {run.path.name}: {run.path}")
    result = fit(run, Home.default(), console)
    if not console.json_output:
        console.note(course(result.epochs, result.bundle.metrics["test"]))
    return result


def tune(
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="bayes (the default), random, grid or asha.")
    ] = None,
    config_file: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="Of the study; made from the date.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Go on with a study: to its end, or with more trials."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print both resolved configs and stop.")
    ] = False,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Search learning rate, batch size and other keys; register the best trial's model.

    Example: mailray tune --recipe grid train=smoke data.source=synthetic:256
    Example: mailray tune --resume study-grid-20261126-120000 trials=20
    """
    with command("tune", json_output=json_output) as console:
        both(recipe, config_file)
        record = _study(recipe, config_file, name, resume, overrides or [])
        study, config = record.study, record.config
        if print_config:
            tree = {"study": study.model_dump(mode="json", by_alias=True, exclude_defaults=True),
                    "train": config.model_dump(mode="json")}  # fmt: skip
            return console.result(yaml_text(tree), tree)
        from cluster.commands.studies import shown
        from tuning.study import search

        each = study.resources.workers * study.resources.cpus
        console.note(f"study {record.path.name}: {record.path}")
        with ray_session(address=address, cpus=(study.concurrent or 1) * each + 1):
            result = search(record, Home.default(), console)
        console.result(shown(result, config.data.label_set), result.facts())


def _study(
    recipe: str | None, file: Path | None, name: str | None, resume: str | None, given: list[str]
) -> "Record":
    """A study, new or to be gone on with; nothing is written yet."""
    from tuning.config import resolve_study

    if resume is not None and name not in (None, resume):
        raise ConfigError(f"--resume {resume} and --name {name}: a study keeps its name")
    configs = None
    if resume is None or recipe or file:
        configs = resolve_study(recipe=recipe, file=file, overrides=given)
    from tuning.record import known_study, new_study

    if resume is not None:
        return known_study(Home.default(), resume, given, configs)
    assert configs is not None
    return new_study(Home.default(), *configs, name)


def course(epochs: list[dict[str, Any]], test: dict[str, Any]) -> Table:
    """How training went: a row for each epoch, as `Status.history` gives them, and the test."""
    rows = Table(
        "epoch", "train loss", "validation loss", "accuracy", "F1", "ROC AUC", "seconds", box=None
    )
    keys = ("loss", "accuracy", "f1", "roc_auc")
    for row in epochs:
        loss = "" if row["train_loss"] is None else f"{row['train_loss']:.4f}"
        rows.add_row(
            f"{row['epoch']}, best" if row["best"] else str(row["epoch"]), loss,
            *(f"{row[f'val_{key}']:.4f}" for key in keys), f"{row['seconds']:.1f}",
            style="bold" if row["best"] else None,
        )  # fmt: skip
    rows.add_row("test", "", *(f"{test[key]:.4f}" for key in keys), "")
    return rows


def yaml_text(tree: dict[str, Any]) -> str:
    """As a file has it."""
    import yaml

    return yaml.safe_dump(tree, sort_keys=False).rstrip()
