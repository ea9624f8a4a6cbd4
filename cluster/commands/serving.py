"""`mailray serve`, `mailray classify`."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from cluster.commands.evaluation import PRECISIONS, RUNTIMES, located, one_of
from cluster.commands.explanation import explained, shown
from cluster.commands.frame import Address, Json, Overrides, command
from cluster.console import Console
from cluster.session import ray_session
from training.home import Home
from training.mail import MailError
from training.schema import ConfigError, validate

_CHUNK = 64
"""Mails classified between two updates of the progress line."""

_AT_ONCE = 16
"""Requests under way to a server."""

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

        if Path(model).is_dir():
            model = str(Path(model).absolute())  # replicas have another working directory
        config = validate(ServeConfig, {"model": model}, overrides or [])
        with served(console, config, address) as url:
            console.result(f"{url}  POST a mail to {url}/v1/classify; Ctrl-C stops", {"url": url})
            wait()


@contextmanager
def served(console: Console, config: Any, address: str | None) -> Iterator[str]:
    """The URL of a served model, for the time of the block."""
    from serving.proxy import in_front

    # What their queues take, and one in each lane: with more the replicas would have to refuse.
    at_once = {"replicas": config.replicas, "requests": config.max_queued + config.cpus}
    proxy = in_front(config.proxy, config.host, config.port, **at_once)
    with proxy as listens, ray_session(address=address, cpus=_cpus(config)) as session:
        from serving.deployment import log_folder, start, stop
        from serving.log import make

        # Replicas of another machine have other disks.
        if session.local and (folder := log_folder(config, Home.default())):
            make(folder)
        with console.stage("serving") as stage:
            stage.update("starting the replica")
            url = start(config, listens if session.local else None)
            stage.update(url)
        try:
            yield url
        finally:
            stop()


def _cpus(config: Any) -> int:
    """Ray's own processes need some, too."""
    return int(config.replicas * config.cpus + 2)


def wait() -> None:
    """Until Ctrl-C or SIGTERM, both of which are the right way to end."""
    try:
        threading.Event().wait()
    except (KeyboardInterrupt, SystemExit):
        return


def classify(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Mails as raw messages; - is stdin.")
    ] = None,
    bulk: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Instead of files, as data.source; no labels needed."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --bulk, a directory for Parquet files; begun, it is gone on with."),
    ] = None,
    model: Model = "mailray-spam",
    url: Annotated[
        str | None, typer.Option(help="A server that `mailray serve` started, instead of a model.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="With --url: a file with its bearer token; or set MAILRAY_TOKEN."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, bf16, fp32 or int8; without --url.")
    ] = "auto",
    runtime: Annotated[
        str, typer.Option(help="auto (the fastest here), torch, onnx or openvino; without --url.")
    ] = "auto",
    operating_point: Annotated[
        str, typer.Option(help="auto, strict, balanced, lenient or none; without --url.")
    ] = "auto",
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which words and facts decide; without --url.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --bulk, copies of the model; as many as GPUs, or CPUs."),
    ] = None,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Say of each mail what it is. Exit code 2 if one of the files is no mail.

    With --bulk what is no mail is a row that says why, and the exit code is 2 if all are.

    Example: mailray classify inbox/*.eml --url http://127.0.0.1:8000
    Example: mailray classify --bulk archive.mbox --out verdicts
    """
    with command("classify", json_output=json_output) as console:
        one_of("--precision", precision, *PRECISIONS)
        one_of("--runtime", runtime, *RUNTIMES)
        if operating_point not in (points := ("auto", "strict", "balanced", "lenient", "none")):
            raise ConfigError(
                f"--operating-point: one of {', '.join(points)}, got {operating_point!r}"
            )
        if explain and (url or bulk):
            raise ConfigError("--explain: needs a model here; a server has POST /v1/explain")
        if bulk is not None:
            if files or url:
                raise ConfigError(f"--bulk excludes {'files' if files else '--url'}")
            from cluster.commands.bulk import bulk as classify_all

            return classify_all(
                console, bulk, out, model=model, how=(runtime, precision),
                operating_point=operating_point, workers=workers, address=address,
            )  # fmt: skip
        if not files:
            raise ConfigError("name the mails' files, or a source with --bulk")
        if out is not None or workers is not None:
            raise ConfigError("--out and --workers are for --bulk")
        mails = dict(enumerate(files))
        raws, faults = _read(mails)
        with console.stage("classify") as stage:
            verdicts: dict[int, dict[str, Any]] = {}
            for number, verdict in (
                _by_url(url, _token(token_file), raws, faults)
                if url
                else _by_model(model, (precision, runtime), operating_point, raws, faults)
            ):
                verdicts[number] = verdict
                stage.update(f"{len(verdicts):,} of {len(raws):,} mails", len(verdicts), len(raws))
            stage.update(f"{len(verdicts):,} mails")
        if explain:
            _explain(console, model, {number: raws[number] for number in verdicts}, verdicts)
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
        reasons = [shown(mails[n], v, v["explanation"]) for n, v in verdicts.items() if explain]
        console.result(Group(rows, *reasons), {"mails": answers})
        if faults:
            raise typer.Exit(2)


def _explain(
    console: Console, model: str, raws: dict[int, bytes], verdicts: dict[int, dict[str, Any]]
) -> None:
    """Add to each verdict its explanation."""
    with console.stage("explain") as stage:
        for done, (number, found) in enumerate(explained(model, raws), 1):
            verdicts[number]["explanation"] = found
            stage.update(f"{done:,} of {len(raws):,} mails", done, len(raws))


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
    url: str, token: str | None, raws: dict[int, bytes], faults: dict[int, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    from serving.client import MailrayClient, RefusedError

    with MailrayClient(url, token=token) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {pool.submit(client.classify, raw): number for number, raw in raws.items()}
        try:
            for done in as_completed(asked):
                try:
                    yield asked[done], done.result().model_dump()
                except RefusedError as error:
                    faults[asked[done]] = str(error)
        finally:  # another fault: the rest would meet it as well
            pool.shutdown(cancel_futures=True)


def _token(file: Path | None) -> str | None:
    """The bearer token: of a file, or of the environment, where no process list shows it."""
    if file is None:
        return os.environ.get("MAILRAY_TOKEN", "").strip() or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise ConfigError(f"--token-file: {file}: {why}") from error
    if not token:
        raise ConfigError(f"--token-file: {file} is empty; it must have the token as its only line")
    return token


def _by_model(
    model: str,
    how: tuple[str, str],
    point: str,
    raws: dict[int, bytes],
    faults: dict[int, str],
) -> Iterator[tuple[int, dict[str, Any]]]:
    from dataclasses import asdict

    from serving.classifier import Classifier

    precision, runtime = how
    classifier = Classifier(
        located(model),
        precision,  # type: ignore[arg-type]
        runtime,  # type: ignore[arg-type]
        operating_point=point,  # type: ignore[arg-type]
    )
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
