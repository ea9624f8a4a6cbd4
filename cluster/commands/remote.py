"""`mailray submit`, `mailray doctor`."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster import doctor as checks
from cluster.commands.frame import Json, command
from cluster.commands.training import cpus
from cluster.console import Console
from cluster.doctor import Check
from cluster.jobs import INTERRUPTED, JobOutcome, checkout
from cluster.jobs import submit as hand_over
from training import corpus
from training.config import resolve
from training.home import Home
from training.schema import ConfigError

SUBMITTED = ("train", "tune", "evaluate", "data", "doctor")

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
        if dry_run and not kubernetes:
            raise ConfigError("--dry-run prints manifests; it needs --kubernetes")
        if kubernetes:
            _submit_ray_job(console, words, namespace, context, overlay, name, dry_run, detach)
            return
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
                stops=lambda: console.ask("stop the job?"),
            )
            stage.update(f"{outcome.job_id} {outcome.status}")
        end(console, outcome)


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

    kind = _folder(overlay) / ("study" if words[0] == "tune" else "training")
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


def _folder(overlay: str) -> Path:
    """An overlay of the repository, or a directory of the user's own, which has a / in its name."""
    folder = Path(overlay) if "/" in overlay else _k8s() / "overlays" / overlay
    if not folder.is_dir():
        allowed = sorted(each.name for each in (_k8s() / "overlays").glob("*/"))
        raise ConfigError(
            f"--overlay: one of {', '.join(allowed)} or a directory such as ./mine, got {overlay!r}"
        )
    return folder


def _k8s() -> Path:
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


def doctor(
    recipe: Annotated[str | None, typer.Option(help="The recipe to prepare for.")] = None,
    address: JobAddress = None,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    overlay: Annotated[str, typer.Option(help="As of submit, with --kubernetes.")] = "dev",
    json_output: Json = False,
) -> None:
    """Check what a run needs, each fault with its remedy. Exit code 1 if one is found.

    Example: mailray doctor --recipe spam-bert --address http://head:8265
    Example: mailray doctor --kubernetes --namespace mail --overlay gpu
    """
    with command("doctor", json_output=json_output) as console:
        if kubernetes:
            from cluster import preflight
            from cluster.rayjobs import connect

            folder = _folder(overlay)
            _examined(console, preflight.checks(connect(namespace, context), _k8s(), folder))
            return
        config = resolve(recipe=recipe)
        home = Home.default()
        scaling = config.scaling

        def model() -> str:
            from training.weights import locate

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
        _examined(console, listed)


def _examined(console: Console, listed: list[Check]) -> None:
    """Run the checks, show what they found, and end with their exit code."""
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
