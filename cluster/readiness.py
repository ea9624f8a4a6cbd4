"""Whether the nodes of a cluster are fit for a run, each fault with its remedy.

    findings = examine(checks(survey(home, names), here(names), workers=2, cpus=1, gpu=False))

What the nodes tell (nodes.py) is judged apart from them: the driver, whose versions theirs must
equal, is mostly another machine than the one that asks them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cluster.doctor import SHOWN, Check, Concern
from cluster.nodes import Node

DECIDING: Final = ("python", *SHOWN)
"""Where these differ nothing can be relied on; where another package does, mostly all goes well."""


def checks(
    nodes: Sequence[Node], driver: Mapping[str, str], *, workers: int, cpus: int, gpu: bool
) -> list[Check]:
    """What to make of them, for `workers` training workers of `cpus` CPUs, and a GPU if `gpu`."""
    answered = [node for node in nodes if not node.silent]
    return [
        Check(
            "nodes",
            lambda: _answers(nodes),
            "see `ray status`, and raylet.err in the node's /tmp/ray/session_latest/logs; a mount "
            "that hangs keeps a node silent too",
        ),
        Check(
            "versions",
            lambda: _versions(answered, driver),
            "one image for driver, head and workers: `make image` from this checkout",
        ),
        Check(
            "shared storage",
            lambda: _shared(answered),
            "mount one volume (NFS, a ReadWriteMany claim) on every node, with MAILRAY_HOME on it",
        ),
        Check(
            "CPUs",
            lambda: _cpus(nodes, workers, cpus),
            "fewer scaling.workers or scaling.cpus, or more nodes; nodes that an autoscaler would "
            "bring are not counted",
        ),
        Check(
            "GPUs",
            lambda: _gpus(answered, workers if gpu else 0),
            "the CUDA image (`make image CUDA=1`), a driver on the node, the GPU limit of the pod",
        ),
    ]


def _answers(nodes: Sequence[Node]) -> str:
    if silent := [f"{node.name}: {node.silent}" for node in nodes if node.silent]:
        raise RuntimeError("; ".join(silent))
    return f"{len(nodes)} of {len(nodes)} answered"


def _versions(nodes: Sequence[Node], driver: Mapping[str, str]) -> str:
    faults: list[str] = []
    concerns: list[str] = []
    for name, wanted in driver.items():
        found: dict[str, list[str]] = {}
        for node in nodes:
            if (version := node.versions.get(name, wanted)) != wanted:
                found.setdefault(version, []).append(node.name)
        for version, where in found.items():
            line = (
                f"{name} {version or 'is missing'} on {', '.join(where)}, {wanted or 'none'} here"
            )
            (faults if name in DECIDING or not version else concerns).append(line)
    if faults:
        raise RuntimeError("; ".join([*faults, *concerns]))
    if concerns:
        raise Concern("; ".join(concerns))
    shown = ", ".join(f"{name} {driver[name]}" for name in DECIDING if driver.get(name))
    return f"{shown} here and on {len(nodes)} nodes"


def _shared(nodes: Sequence[Node]) -> str:
    faults = [f"{node.name}: {node.unwritable}" for node in nodes if node.unwritable]
    faults += [
        f"{node.name} does not see what {', '.join(node.missed)} wrote"
        for node in nodes
        if node.missed
    ]
    if faults:
        raise RuntimeError("; ".join(faults))
    return f"{len(nodes)} nodes write, and see each other's files"


def _cpus(nodes: Sequence[Node], workers: int, cpus: int) -> str:
    total = sum(node.cpus for node in nodes)
    places = sum(int(node.cpus // cpus) for node in nodes)
    detail = f"{workers} workers x {cpus} CPUs = {workers * cpus} of {total:g}"
    if places < workers:
        raise RuntimeError(f"{detail}, room for {places} of them: the run would wait for ever")
    if (left := total - workers * cpus) < 1:
        raise RuntimeError(f"{detail}, none is left for Ray Data: the run would hang")
    return f"{detail}, {left:g} left for Ray Data"


def _gpus(nodes: Sequence[Node], wanted: int) -> str:
    """Faults where a worker would not get what Ray promises it; `wanted` GPUs in all."""
    faults = [f"{node.name}: {node.torch}" for node in nodes if node.torch]
    for node in nodes:
        if node.devices < node.gpus and not node.torch:
            faults.append(f"{node.name}: Ray has {node.gpus:g} GPUs, Torch sees {node.devices}")
    total = sum(node.gpus for node in nodes)
    if total < wanted:
        faults.append(f"{wanted} workers want a GPU each, Ray has {total:g}")
    seen = {node.nccl for node in nodes if node.devices}
    if len(seen) > 1 or (total > 1 and "" in seen):
        faults += [f"{node.name}: NCCL {node.nccl or 'missing'}" for node in nodes if node.devices]
    if faults:
        raise RuntimeError("; ".join(faults))
    if idle := [node.name for node in nodes if node.devices > node.gpus]:
        raise Concern(f"Torch sees more GPUs than Ray has to give on {', '.join(idle)}")
    return f"{total:g} of Ray, all seen by Torch, NCCL {seen.pop()}" if total else "none"
