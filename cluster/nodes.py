"""The nodes of a cluster, each asked by a task that runs there and nowhere else.

    with ray_session(address=None, cpus=2):
        nodes = survey(Path("/mailray"), ["ray", "torch"])

What to make of what they tell is in readiness.py.
"""

import importlib.metadata
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 60.0
"""How long a node may take: a new process imports Torch, and may first fetch the job's files."""
SEEN_SECONDS = 10.0
"""How long a file may take from one node to the others: NFS keeps what it knows for a while."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node, as Ray counts it and as it tells of itself."""

    name: str
    """Its address in the cluster."""
    cpus: float
    gpus: float
    """What Ray has to give there, in CPUs and GPUs."""
    silent: str = ""
    """Why it told nothing; empty where it did."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and of packages; empty for one that is not installed."""
    unwritable: str = ""
    """Why the storage takes no file from here."""
    missed: Sequence[str] = ()
    """Nodes whose file in the storage is not to be seen from here."""
    devices: int = 0
    """GPUs that Torch sees."""
    nccl: str = ""
    torch: str = ""
    """Why Torch says nothing about GPUs."""


def here(packages: Sequence[str]) -> dict[str, str]:
    """The versions of this process, as `Node.versions` has them."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            # `+cpu` and `+cu130` are builds of one version: head and driver mostly have the first.
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def survey(storage: Path, packages: Sequence[str], seconds: float = ANSWER_SECONDS) -> list[Node]:
    """Ask each living node of the cluster that this process has joined.

    Takes at most `seconds` and a little, also where a node hangs. A node with all its CPUs taken
    answers too. The storage is left as it was.
    """
    import ray

    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    names = {key: _name(node, list(alive.values())) for key, node in alive.items()}
    folder = storage / f".doctor-{secrets.token_hex(4)}"
    told = _ask(_tell, {key: (str(folder), name, packages) for key, name in names.items()}, seconds)
    wrote = {
        key: name for key, name in names.items()
        if isinstance(told[key], dict) and not told[key]["unwritable"]
    }  # fmt: skip
    missed = _ask(
        _missed, {key: (str(folder), list(wrote.values())) for key in wrote}, 2 * SEEN_SECONDS
    )
    # Only now: a file that is gone again would count as one that was not seen.
    answered = [key for key in names if isinstance(told[key], dict)]
    _ask(_sweep, dict.fromkeys(answered, (str(folder),)), SEEN_SECONDS)
    nodes = []
    for key, name in sorted(names.items(), key=lambda item: item[1]):
        resources = alive[key]["Resources"]
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        answers = [told[key], missed.get(key, [])]
        silent = next((_reason(each) for each in answers if isinstance(each, Exception)), "")
        facts = {} if silent else {**answers[0], "missed": answers[1]}
        nodes.append(Node(name, cpus, gpus, silent, **facts))
    return nodes


def _tell(folder: str, name: str, packages: Sequence[str]) -> dict[str, Any]:
    """Runs on the node: all that it can say alone, as fields of `Node`."""
    facts: dict[str, Any] = {"versions": here(packages), "unwritable": ""}
    try:
        Path(folder).mkdir(exist_ok=True)  # its parent is there, or is no storage of the cluster
        with Path(folder, name).open("w", encoding="utf-8") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        facts["unwritable"] = f"{Path(folder).parent}: {error.strerror}"
    try:
        import torch

        facts["devices"] = torch.cuda.device_count()
        if facts["devices"]:
            facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    except Exception as error:  # whatever a broken driver or library makes of it
        facts["torch"] = _reason(error)
    return facts


def _missed(folder: str, names: Sequence[str]) -> list[str]:
    """Runs on the node: whose files do not turn up here."""
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        missed = sorted({*names} - {path.name for path in Path(folder).iterdir()})
        if not missed or time.monotonic() > deadline:
            return missed
        time.sleep(0.5)


def _sweep(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # on a shared storage all but one come too late


def _ask(
    task: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]], seconds: float
) -> dict[str, Any]:
    """What the task gives on each node; an exception where it failed or did not end in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not calls:
        return {}
    function = ray.remote(num_cpus=0, max_retries=0)(task)
    asked = {
        node: function.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(*words)
        for node, words in calls.items()
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    answers: dict[str, Any] = {}
    for node, ref in asked.items():
        try:
            if ref not in ready:
                ray.cancel(ref, force=True)
                raise TimeoutError(f"no answer within {seconds:g} s")
            answers[node] = ray.get(ref)
        except Exception as error:  # Ray's, or the task's own, in a class made for it
            answers[node] = error
    return answers


def _name(node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    """The node's address, with its id where others share that, as in a test."""
    address = str(node["NodeManagerAddress"])
    shared = sum(other["NodeManagerAddress"] == address for other in nodes) > 1
    return f"{address}-{node['NodeID'][:6]}" if shared else address


def _reason(error: BaseException) -> str:
    """The last line of what Ray or a library says: before it stands a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
