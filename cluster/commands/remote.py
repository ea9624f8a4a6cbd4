"""`mailray submit`: a job on a Ray cluster, or a RayJob on Kubernetes."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.frame import Json, command
from cluster.console import Console
from cluster.jobs import INTERRUPTED, JobOutcome, checkout
from cluster.jobs import submit as hand_over
from training.schema import ConfigError

SUBMITTED = ("train", "tune", "evaluate", "compare", "classify", "data", "models", "doctor")

OnKubernetes = Annotated[
    bool, typer.Option("--kubernetes", help="A RayJob of KubeRay instead of a Ray cluster's job.")
]
Namespace = Annotated[str | None, typer.Option(help="Of Kubernetes; the kubeconfig's without it.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; the current without it.")]
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
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    overlay: Annotated[
        str, typer.Option(help="Of k8s/overlays, or ./a/directory: what the job runs on.")
    ] = "dev",
    name: Annotated[str | None, typer.Option(help="Of the RayJob; made up without it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be applied, and apply nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    json_output: Json = False,
) -> None:
    """Run a mailray command as a job on a Ray cluster; the exit code is the job's.

    Example: mailray submit --address http://head:8265 -- train --recipe spam-bert
    Example: mailray submit --kubernetes --overlay gpu -- train --recipe spam-bert
    """
    with command("submit", json_output=json_output) as console:
        if words[0] not in SUBMITTED:
            raise ConfigError(f"a job is one of {', '.join(SUBMITTED)}, got {words[0]!r}")
        if words[0] == "classify":
            _is_bulk(words)
        if dry_run and not kubernetes:
            raise ConfigError("--dry-run prints manifests; it needs --kubernetes")
        if kubernetes:
            _submit_ray_job(console, words, namespace, context, overlay, name, dry_run, detach)
            return
        with console.stage("job") as stage:
            outcome = hand_over(
                address,
                words,
                working_dir=checkout(),
                env=settings(),
                on_line=console.note,
                on_status=stage.update,
                detach=detach,
                stops=lambda: console.ask("stop the job?"),
            )
            stage.update(f"{outcome.job_id} {outcome.status}")
        end(console, outcome)


def _is_bulk(words: list[str]) -> None:
    """A job has no files of its own, and what it writes into its own directory is lost."""
    given = [word.partition("=")[::2] for word in words]
    out = next((value or [*words, ""][at + 1] for at, (name, value) in enumerate(given)
                if name == "--out"), "")  # fmt: skip
    if not any(name == "--bulk" for name, _ in given) or not Path(out).is_absolute():
        raise ConfigError(
            "a classify job takes --bulk SOURCE and --out with the absolute path of a directory "
            "that all nodes share"
        )


def settings() -> dict[str, str]:
    """What decides where a job's results go, which must not differ between here and there."""
    from training.provenance import commit

    names = (
        "MAILRAY_HOME", "MLFLOW_TRACKING_URI", "HF_HUB_OFFLINE", "MAILRAY_FORK", "WANDB_MODE",
    )  # fmt: skip
    # What is uploaded has no history.
    told = {"MAILRAY_REVISION": revision} if (revision := commit()) else {}
    return told | {name: os.environ[name] for name in names if name in os.environ}


def _submit_ray_job(
    console: Console,
    words: list[str],
    namespace: str | None,
    context: str | None,
    overlay: str,
    name: str | None,
    dry_run: bool,
    detach: bool,
) -> None:
    """`submit --kubernetes`."""
    import yaml

    from cluster import rayjobs
    from cluster.following import Following
    from cluster.manifests import render

    kind = folder(overlay) / ("study" if words[0] == "tune" else "training")
    name = name or f"mailray-{words[0]}-{datetime.now(UTC):%m%d-%H%M%S}-{secrets.token_hex(2)}"
    documents = rayjobs.ray_job(render(kind), words, name)
    if dry_run:
        shown = yaml.safe_dump_all(documents, sort_keys=False).rstrip()
        console.result(shown, {"documents": documents})
        return
    kube = rayjobs.connect(namespace, context)
    with console.stage("job") as stage:
        stage.update(f"{name} in {kube.namespace}")
        kube.apply(documents)
        follow = f"`mailray jobs logs --kubernetes --namespace {kube.namespace} --follow {name}`"
        if detach:
            outcome = JobOutcome(name, "PENDING", 0, f"job {name} is submitted; {follow}")
        else:
            following = Following(kube, name, console.note, stage.update)
            try:
                outcome = following.run()
            except KeyboardInterrupt:
                if console.ask("stop the job?"):
                    kube.delete(name)
                    outcome = JobOutcome(name, "STOPPED", INTERRUPTED, f"job {name} is deleted")
                else:
                    goes_on = f"no longer following job {name}, which goes on; {follow}"
                    outcome = JobOutcome(name, "RUNNING", INTERRUPTED, goes_on)
        stage.update(f"{name} {outcome.status}")
    end(console, outcome)


def folder(overlay: str) -> Path:
    """An overlay of the repository, or a directory of the user's own, which has a / in its name."""
    found = Path(overlay) if "/" in overlay else manifests() / "overlays" / overlay
    if not found.is_dir():
        allowed = sorted(each.name for each in (manifests() / "overlays").glob("*/"))
        raise ConfigError(
            f"--overlay: one of {', '.join(allowed)} or a directory such as ./mine, got {overlay!r}"
        )
    return found


def manifests() -> Path:
    """`k8s/` of the repository."""
    root = checkout()
    if root is None:
        raise ConfigError("--overlay: the manifests are in mailray's repository; run it from there")
    return root / "k8s"


def end(console: Console, outcome: JobOutcome) -> None:
    """What a command that followed a job says last, with the job's exit code."""
    if outcome.exit_code:
        console.fail(f"job {outcome.job_id}: {outcome.message}", outcome.exit_code)
    console.result(
        outcome.message,
        {"job_id": outcome.job_id, "status": outcome.status, "exit_code": outcome.exit_code},
    )
