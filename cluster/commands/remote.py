"""`mailray submit`, `mailray doctor`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster import doctor as checks
from cluster.commands.frame import Json, command
from cluster.commands.training import cpus
from cluster.doctor import Check
from cluster.jobs import checkout
from cluster.jobs import submit as hand_over
from training import corpus
from training.config import resolve
from training.home import Home
from training.schema import ConfigError

SUBMITTED = ("train", "tune", "evaluate", "data", "doctor")

JobAddress = Annotated[
    str | None,
    typer.Option(
        help="The cluster's job server, http://host:8265.", envvar="RAY_API_SERVER_ADDRESS"
    ),
]


def submit(
    words: Annotated[
        list[str], typer.Argument(help="A mailray command, after --.", metavar="-- COMMAND...")
    ],
    address: JobAddress = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    json_output: Json = False,
) -> None:
    """Run a mailray command as a job on a Ray cluster; the exit code is the job's.

    Example: mailray submit --address http://head:8265 -- train --recipe spam-bert
    """
    with command("submit", json_output=json_output) as console:
        if words[0] not in SUBMITTED:
            raise ConfigError(f"a job is one of {', '.join(SUBMITTED)}, got {words[0]!r}")
        # What decides where a job's results go must not differ between here and there.
        env = {
            name: os.environ[name]
            for name in ("MAILRAY_HOME", "MLFLOW_TRACKING_URI", "HF_HUB_OFFLINE")
            if name in os.environ
        }
        with console.stage("job") as stage:
            outcome = hand_over(
                address,
                words,
                working_dir=checkout(),
                env=env,
                on_line=console.note,
                on_status=stage.update,
                detach=detach,
            )
            stage.update(f"{outcome.job_id} {outcome.status}")
        if outcome.exit_code:
            console.fail(f"job {outcome.job_id}: {outcome.message}", outcome.exit_code)
        console.result(
            outcome.message,
            {"job_id": outcome.job_id, "status": outcome.status, "exit_code": outcome.exit_code},
        )


def doctor(
    recipe: Annotated[str | None, typer.Option(help="The recipe to prepare for.")] = None,
    address: JobAddress = None,
    json_output: Json = False,
) -> None:
    """Check what a run needs, each fault with its remedy. Exit code 1 if one is found.

    Example: mailray doctor --recipe spam-bert --address http://head:8265
    """
    with command("doctor", json_output=json_output) as console:
        config = resolve(recipe=recipe)
        home = Home.default()
        scaling = config.scaling

        def model() -> str:
            from training.model import locate

            return locate(config.model.name)

        def mail() -> str:
            place = home.corpora / "spamassassin"
            if config.data.source != "spamassassin":
                return f"{config.data.source}, not a corpus to fetch"
            if not (place / corpus.MANIFEST).is_file():
                raise FileNotFoundError(f"not at {place}")
            return str(place)

        def tracker() -> str:
            from training.tracking import client

            client(home)
            return home.tracking_uri

        listed = [
            checks.packages(),
            checks.storage(Path(home.root)),
            checks.memory(),
            checks.shared_memory(),
            Check("model", model, "name a model directory in model.name"),
            Check("corpus", mail, "run `mailray data fetch spamassassin`"),
            Check("tracker", tracker, "set MLFLOW_TRACKING_URI, or unset it for an SQLite file"),
        ]
        if address is None:  # a local Ray is given what the run needs
            total = max(os.cpu_count() or 1, cpus(config))
            listed.append(
                checks.enough_cpus(
                    workers=scaling.fewest, cpus_per_worker=scaling.cpus, total=total
                )
            )
        else:
            listed.append(checks.versions_agree(address))
        with console.stage("doctor") as stage:
            findings = checks.examine(listed)
            faults = sum(finding.ok is False for finding in findings)
            stage.update(f"{len(findings)} checks, {faults} faults")
        console.result(
            checks.table(findings),
            {"findings": [{"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy}
                          for f in findings]},
        )  # fmt: skip
        if code := checks.worst(findings):
            raise typer.Exit(code)
