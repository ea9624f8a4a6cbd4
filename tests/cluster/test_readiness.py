"""What is made of the facts that nodes tell: made-up nodes, each with one thing wrong."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.doctor import Finding, examine
from cluster.nodes import Node
from cluster.readiness import checks

DRIVER = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0", "rich": "14.0.0"}
ONE = Node("10.0.0.1", cpus=4, gpus=0, versions=DRIVER)
TWO = replace(ONE, name="10.0.0.2")
GPU = replace(ONE, gpus=1, devices=1, nccl="2.29.3")


def found(*nodes: Node, workers: int = 2, cpus: int = 1, gpu: bool = False) -> dict[str, Finding]:
    findings = examine(checks(nodes, DRIVER, workers=workers, cpus=cpus, gpu=gpu))
    return {finding.name: finding for finding in findings}


def faults(*nodes: Node, **options: Any) -> dict[str, str]:
    """What is not as it should be, by check."""
    return {name: each.detail for name, each in found(*nodes, **options).items() if not each.ok}


def test_equal_nodes_with_room_and_one_storage_are_fit() -> None:
    assert faults(ONE, TWO) == {}
    assert found(ONE, TWO)["CPUs"].detail == "2 workers x 1 CPUs = 2 of 8, 6 left for Ray Data"
    assert "on 2 nodes" in found(ONE, TWO)["versions"].detail


def test_a_silent_node_is_a_fault_and_not_judged_otherwise() -> None:
    silent = Node("10.0.0.3", cpus=4, gpus=1, silent="no answer within 60 s")
    assert faults(ONE, silent) == {"nodes": "10.0.0.3: no answer within 60 s"}


@pytest.mark.parametrize(
    ("package", "version", "ok", "said"),
    [
        ("ray", "2.59.0", False, "ray 2.59.0 on 10.0.0.2, 2.60.0 here"),
        ("python", "3.11.9", False, "python 3.11.9 on 10.0.0.2, 3.11.7 here"),
        ("rich", "", False, "rich is missing on 10.0.0.2, 14.0.0 here"),
        ("rich", "15.0.0", None, "rich 15.0.0 on 10.0.0.2, 14.0.0 here"),
    ],
)
def test_another_version_is_a_fault_where_it_decides(
    package: str, version: str, ok: bool | None, said: str
) -> None:
    finding = found(ONE, replace(TWO, versions=DRIVER | {package: version}))["versions"]
    assert (finding.ok, finding.detail) == (ok, said)
    assert "make image" in finding.remedy


def test_storage_that_is_read_only_or_not_one_is_a_fault() -> None:
    shut = replace(TWO, unwritable="/mailray: Read-only file system")
    assert faults(ONE, shut) == {"shared storage": "10.0.0.2: /mailray: Read-only file system"}
    apart = [replace(ONE, missed=["10.0.0.2"]), replace(TWO, missed=["10.0.0.1"])]
    assert faults(*apart)["shared storage"] == (
        "10.0.0.1 does not see what 10.0.0.2 wrote; 10.0.0.2 does not see what 10.0.0.1 wrote"
    )


def test_cpus_are_counted_by_node_with_one_left_for_ray_data() -> None:
    head = replace(ONE, cpus=0)
    assert faults(head, ONE, workers=3) == {}
    assert "none is left for Ray Data" in faults(head, ONE, workers=4)["CPUs"]
    # Six CPUs, but on no node three for a second worker.
    assert "room for 1 of them" in faults(ONE, replace(TWO, cpus=2), cpus=3)["CPUs"]


def test_a_gpu_that_ray_promises_and_torch_does_not_see_is_a_fault() -> None:
    blind = replace(GPU, name="10.0.0.2", devices=0, nccl="")
    assert faults(GPU, blind, gpu=True) == {"GPUs": "10.0.0.2: Ray has 1 GPUs, Torch sees 0"}
    broken = replace(blind, torch="libcudart.so.13: cannot open shared object file")
    assert faults(GPU, broken)["GPUs"].startswith("10.0.0.2: libcudart.so.13")
    assert faults(GPU, ONE, gpu=True) == {"GPUs": "2 workers want a GPU each, Ray has 1"}
    idle = replace(ONE, devices=2, nccl="2.29.3")
    assert faults(idle) == {"GPUs": "Torch sees more GPUs than Ray has to give on 10.0.0.1"}
    assert found(idle)["GPUs"].ok is None


def test_gpus_talk_to_each_other_by_one_nccl() -> None:
    other = replace(GPU, name="10.0.0.2")
    told = found(GPU, other, gpu=True)["GPUs"]
    assert (told.ok, told.detail) == (True, "2 of Ray, all seen by Torch, NCCL 2.29.3")
    older = faults(GPU, replace(other, nccl="2.21.5"))
    assert older == {"GPUs": "10.0.0.1: NCCL 2.29.3; 10.0.0.2: NCCL 2.21.5"}
    assert "NCCL missing" in faults(GPU, replace(other, nccl=""))["GPUs"]
