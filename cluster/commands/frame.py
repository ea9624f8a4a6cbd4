"""What every command has: its console, its log, and one table from faults to exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cluster.console import Console
from cluster.dashboard import JobError
from cluster.session import SessionError, quiet
from training.corpus import CorpusError
from training.home import Home
from training.mail import MailError
from training.schema import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="A running Ray cluster, host:port, or `auto`; without it a local Ray is started.",
        envvar="RAY_ADDRESS",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Config keys to change, as optimizer.lr=3e-5.", metavar="[KEY=VALUE]..."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A YAML file instead of a recipe.")
]

_WRONG_INPUT = (
    "BundleError", "ConfigError", "MailError", "ModelNotFound", "NotExplainableError",
    "PromotionError", "RunNameError", "SourceError",
)  # fmt: skip
_FAILURE = (
    "BulkError", "BusyError", "ClientError", "CorpusError", "ExportError", "JobError",
    "LedgerError", "ManifestError", "Refused", "RunError", "ServeError", "SessionError",
    "StoreError", "TrackingError", "Unreachable", "UnreachableError",
)  # fmt: skip
"""By name: importing their modules would make `mailray --help` wait for Torch."""

assert all(kind.__name__ in _WRONG_INPUT + _FAILURE for kind in (
    ConfigError, CorpusError, JobError, MailError, SessionError,
))  # fmt: skip


@contextmanager
def command(name: str, *, json_output: bool) -> Iterator[Console]:
    """The block of one command: faults that have a name end it with one clear line.

    The exit code is 2 for a wrong call or input, 1 for a failure, 130 for Ctrl-C.
    """
    quiet()
    home = Home.default()
    try:
        home.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        typer.secho(
            f"mailray: {home.root} cannot be written ({error.strerror}); "
            "set MAILRAY_HOME to a directory that can",
            fg="red", err=True,
        )  # fmt: skip
        raise typer.Exit(1) from error
    with Console.open(name, json_output=json_output, logs=home.logs) as console:
        try:
            yield console
        except KeyboardInterrupt:
            console.fail("interrupted", 130)
        except Exception as error:
            kind = type(error).__name__
            if kind in _WRONG_INPUT:
                console.fail(str(error), 2)
            if kind in _FAILURE:
                console.fail(f"{error}\nthe full log is {console.log_path}", 1)
            if isinstance(error, OSError) and error.strerror:
                console.fail(f"{error.filename or 'storage'}: {error.strerror}", 1)
            raise


def both(recipe: str | None, file: Path | None) -> None:
    """Refuse a recipe and a file together."""
    if recipe is not None and file is not None:
        raise ConfigError("--recipe and --config exclude each other")
