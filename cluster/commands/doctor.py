"""`mailray doctor`: of this machine, of a Ray cluster and its nodes, or of a namespace."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import doctor as checks
from cluster import jobs
from cluster.commands.frame import Json, command
from cluster.commands.remote import (
    Context,
    JobAddress,
    Namespace,
    OnKubernetes,
    folder,
    manifests,
    settings,
)  # fmt: skip
from cluster.commands.training import cpus
from cluster.console import Console
from cluster.dashboard import JobError
from cluster.doctor import DISTRIBUTION, SHOWN, Check, Finding
from cluster.nodes import Node, here, survey
from cluster.readiness import checks as readiness
from cluster.session import ray_session
from training import corpus
from training.config import TrainConfig, resolve
from training.home import Home

JOB_SECONDS = 240.0
"""How long the job that asks the nodes may take: each of its parts has a limit, all below this."""


def doctor(
    recipe: Annotated[str | None, typer.Option(help="The recipe to prepare for.")] = None,
    address: JobAddress = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Inside of a cluster: ask each node. A job does this.")
    ] = False,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    overlay: Annotated[str, typer.Option(help="As of submit, with --kubernetes.")] = "dev",
    json_output: Json = False,
) -> None:
    """Check what a run needs, each fault with its remedy. Exit code 1 if one is found.

    With --address a short job on the cluster asks each of its nodes.

    Example: mailray doctor --recipe spam-bert --address http://head:8265
    Example: mailray doctor --kubernetes --namespace mail --overlay gpu
    Example: mailray submit --kubernetes -- doctor --nodes
    """
    with command("doctor", json_output=json_output) as console:
        if kubernetes:
            from cluster import preflight
            from cluster.rayjobs import connect

            kube = connect(namespace, context)
            listed = preflight.checks(kube, manifests(), folder(overlay))
            _end(console, _examined(console, listed))
            return
        config = resolve(recipe=recipe)
        asked: Sequence[Node] = ()
        if nodes:
            found, asked = _with_nodes(console, config)
        elif address is not None:
            found = _of_cluster(console, config, recipe, address)
        else:
            scaling, total = config.scaling, max(os.cpu_count() or 1, cpus(config))
            room = checks.enough_cpus(
                workers=scaling.fewest, cpus_per_worker=scaling.cpus, total=total
            )
            found = _examined(console, [*_own(config), room])  # a local Ray gets what a run needs
        _end(console, found, asked)


def _own(config: TrainConfig) -> list[Check]:
    """Of the machine that this process runs on."""
    home = Home.default()
    # MLflow tries for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

    def model() -> str:
        from training.weights import TINY, locate

        return "made up" if config.model.name == TINY else locate(config.model.name)

    def mail() -> str:
        place = home.corpora / "spamassassin"
        if config.data.source != "spamassassin":
            return f"{config.data.source}, not a corpus to fetch"
        if not (place / corpus.MANIFEST).is_file():
            raise FileNotFoundError(f"not at {place}")
        return str(place)

    def tracker() -> str:
        from training.tracking import client

        models = client(home).search_registered_models(max_results=1000)
        return f"{home.tracker}, {len(models)} registered models"

    return [
        checks.packages(),
        checks.storage(Path(home.root)),
        checks.memory(),
        checks.shared_memory(),
        Check("model", model, "name a model directory in model.name"),
        Check("corpus", mail, "run `mailray data fetch spamassassin`"),
        Check(
            "tracker and registry",
            tracker,
            "set MLFLOW_TRACKING_URI to what is reached from there, or unset it for an SQLite file",
        ),
    ]


def _with_nodes(console: Console, config: TrainConfig) -> tuple[list[Finding], list[Node]]:
    """Inside of a cluster: this process's machine, and each node."""
    names = _names()
    # All of it before Ray is left, for a job's directory is Ray's.
    with ray_session(address=None, cpus=cpus(config), on_message=console.note):
        with console.stage("nodes") as stage:
            nodes = survey(Home.default().root, names)
            stage.update(f"{len(nodes)} asked")
        return _examined(console, [*_own(config), *_fit(nodes, here(names), config)]), nodes


def _of_cluster(
    console: Console, config: TrainConfig, recipe: str | None, address: str
) -> list[Finding]:
    """From outside: what a job finds there, and whether this machine can hand one over."""
    root = jobs.checkout()
    listed = [checks.packages(), checks.versions_agree(address)]
    listed += [] if root is None else [checks.package(root)]
    found = _examined(console, listed)
    words = ["doctor", "--nodes", "--json", *(["--recipe", recipe] if recipe else [])]
    try:
        with console.stage("job") as stage:
            told = _job(address, words, root, stage.update)
    except JobError as error:
        if str(error) not in {finding.detail for finding in found}:  # else nobody answers at all
            found.append(Finding("job", False, str(error), "`mailray jobs list`, `ray status`"))
        return found
    nodes = [Node(**node) for node in told["nodes"]]
    judged = checks.examine(_fit(nodes, here(_names()), config))
    names = {finding.name for finding in judged}  # these compared the nodes with the head
    theirs = [Finding(**finding) for finding in told["findings"] if finding["name"] not in names]
    return (
        found
        + judged
        + [Finding(f"job: {each.name}", each.ok, each.detail, each.remedy) for each in theirs]
    )


def _names() -> list[str]:
    """The packages whose versions must agree; mailray itself comes with a job from a checkout."""
    names = [each.name for each in checks.requirements()] or list(SHOWN)
    return names if jobs.checkout() else [DISTRIBUTION, *names]


def _fit(nodes: Sequence[Node], driver: dict[str, str], config: TrainConfig) -> list[Check]:
    scaling = config.scaling
    return readiness(nodes, driver, workers=scaling.fewest, cpus=scaling.cpus, gpu=scaling.gpu)


def _job(address: str, words: list[str], root: Path | None, tell: Any) -> dict[str, Any]:
    """What a doctor that runs as a job says, as its --json has it.

    Raises:
        JobError: it was not taken, did not end in time, or said nothing that can be read.
    """
    deadline = time.monotonic() + JOB_SECONDS
    job_id = jobs.submit(
        address, words, working_dir=root, env=settings(),
        on_line=tell, on_status=tell, detach=True,
    ).job_id  # fmt: skip
    while not (row := jobs.status(address, job_id)).over:
        tell(f"{job_id} {row.status}")
        if time.monotonic() > deadline:
            jobs.stop(address, job_id)
            late = f"job {job_id} is {row.status} after {JOB_SECONDS:.0f} s: {row.message}"
            raise JobError(late)
        time.sleep(jobs.POLL_SECONDS)
    lines: list[str] = []
    jobs.logs(address, job_id, lines.append, follow=False)
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and "nodes" in said:
            return said
        if isinstance(said, dict) and "error" in said:
            raise JobError(f"job {job_id}: {said['error']['message'].splitlines()[0]}")
    raise JobError(f"job {job_id} says nothing of nodes: {row.message}; {' '.join(lines[-1:])}")


def _examined(console: Console, listed: Sequence[Check]) -> list[Finding]:
    with console.stage("doctor") as stage:
        findings = checks.examine(listed)
        faults = sum(finding.ok is False for finding in findings)
        stage.update(f"{len(findings)} checks, {faults} faults")
    return findings


def _end(console: Console, findings: list[Finding], nodes: Sequence[Node] = ()) -> None:
    """Show what was found, and end with its exit code."""
    said = {"findings": [asdict(each) for each in findings]}
    if nodes:
        said["nodes"] = [asdict(node) for node in nodes]
    console.result(checks.table(findings), said)
    if code := checks.worst(findings):
        raise typer.Exit(code)
