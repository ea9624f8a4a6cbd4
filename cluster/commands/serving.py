"""`mailray serve`, `mailray classify`."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cluster.commands.evaluation import PRECISIONS, RUNTIMES, located, one_of
from cluster.commands.frame import Address, Json, Overrides, command
from cluster.console import Console
from cluster.session import ray_session
from training.mail import MailError
from training.schema import validate

_CHUNK = 64
"""Mails classified between two updates of the progress line."""

Model = Annotated[str, typer.Option(help="A bundle directory, NAME, NAME@ALIAS or NAME:VERSION.")]


def serve(
    overrides: Overrides = None,
    model: Model = "mailray-spam",
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Serve a model over HTTP until Ctrl-C.

    Example: mailray serve --model mailray-spam@champion port=8080 replicas=2
    """
    with command("serve", json_output=json_output) as console:
        from serving.config import ServeConfig

        config = validate(ServeConfig, {"model": str(located(model).absolute())}, overrides or [])
        with served(console, config, address) as url:
            console.result(f"{url}  POST a mail to {url}/v1/classify; Ctrl-C stops", {"url": url})
            wait()


@contextmanager
def served(console: Console, config: Any, address: str | None) -> Iterator[str]:
    """The URL of a served model, for the time of the block."""
    with ray_session(address=address, cpus=config.replicas * config.cpus + 2):
        from serving.deployment import start, stop

        with console.stage("serving") as stage:
            stage.update("starting the replica")
            url = start(config)
            stage.update(url)
        try:
            yield url
        finally:
            stop()


def wait() -> None:
    """Until Ctrl-C or SIGTERM, both of which are the right way to end."""
    try:
        threading.Event().wait()
    except (KeyboardInterrupt, SystemExit):
        return


def classify(
    files: Annotated[list[Path], typer.Argument(help="Mails as raw messages; - is stdin.")],
    model: Model = "mailray-spam",
    url: Annotated[
        str | None, typer.Option(help="A server that `mailray serve` started, instead of a model.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, bf16, fp32 or int8; without --url.")
    ] = "auto",
    runtime: Annotated[
        str, typer.Option(help="auto (the fastest here), torch or onnx; without --url.")
    ] = "auto",
    json_output: Json = False,
) -> None:
    """Say of each mail what it is. Exit code 2 if one of the files is no mail.

    Example: mailray classify inbox/*.eml --url http://127.0.0.1:8000
    """
    with command("classify", json_output=json_output) as console:
        one_of("--precision", precision, *PRECISIONS)
        one_of("--runtime", runtime, *RUNTIMES)
        mails = dict(enumerate(files))
        raws, faults = _read(mails)
        with console.stage("classify") as stage:
            verdicts: dict[int, dict[str, Any]] = {}
            for number, verdict in (
                _by_url(url, raws, faults)
                if url
                else _by_model(model, precision, runtime, raws, faults)
            ):
                verdicts[number] = verdict
                stage.update(f"{len(verdicts):,} of {len(raws):,} mails", len(verdicts), len(raws))
            stage.update(f"{len(verdicts):,} mails")
        rows = Table("verdict", "probability", "file", box=None, show_header=False, pad_edge=False)
        for number, file in mails.items():
            if number in verdicts:
                found = verdicts[number]
                given = ", ".join(found.get("labels", [found["label"]])) or "none"
                rows.add_row(given, f"{found['probability']:.4f}", str(file))
            else:
                rows.add_row("error", "", f"{file}: {faults[number]}")
        answers = [
            {"file": file} | (verdicts.get(number) or {"error": faults[number]})
            for number, file in mails.items()
        ]
        console.result(rows, {"mails": answers})
        if faults:
            raise typer.Exit(2)


def _read(mails: dict[int, Path]) -> tuple[dict[int, bytes], dict[int, str]]:
    raws: dict[int, bytes] = {}
    faults: dict[int, str] = {}
    for number, file in mails.items():
        try:
            raws[number] = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        except OSError as error:
            faults[number] = error.strerror or str(error)
    return raws, faults


def _by_url(
    url: str, raws: dict[int, bytes], faults: dict[int, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    from serving.client import RefusedError
    from serving.client import classify as ask

    for number, raw in raws.items():
        try:
            yield number, ask(url, raw)
        except RefusedError as error:
            faults[number] = str(error)


def _by_model(
    model: str, precision: str, runtime: str, raws: dict[int, bytes], faults: dict[int, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    from dataclasses import asdict

    from serving.classifier import Classifier

    classifier = Classifier(located(model), precision, runtime)  # type: ignore[arg-type]
    texts: dict[int, str] = {}
    for number, raw in raws.items():
        try:
            texts[number] = classifier.text(raw)
        except MailError as error:
            faults[number] = str(error)
    numbers = list(texts)
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        verdicts = classifier.classify_texts([texts[number] for number in chunk])
        yield from ((n, asdict(verdict)) for n, verdict in zip(chunk, verdicts, strict=True))
