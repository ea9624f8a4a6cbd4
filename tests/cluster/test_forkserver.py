"""Processes forked by a server are as a new Python would be, for Ray and for their scripts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster import forkserver

SCRIPT = """
import json, os, random, sys
import numpy, torch
print(json.dumps({
    "name": __name__, "argv": sys.argv, "here": sys.path[0], "cwd": os.getcwd(),
    "colour": os.environ.get("COLOUR"), "threads": torch.get_num_threads(),
    "chance": [random.random(), numpy.random.rand(), torch.rand(()).item()],
    "ray": "ray" in sys.modules, "parent": os.getppid(), "group": os.getpgid(0) == os.getpid(),
}))
print("a fault", file=sys.stderr)
sys.exit(3 if sys.argv[1:] == ["fail"] else 0)
"""


@pytest.fixture
def raylet() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that stands for a raylet."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def started(
    script: Path, raylet: "subprocess.Popen[bytes] | None", *words: str, **env: str
) -> tuple[dict[str, object], str]:
    """What a script says of itself that is started as Ray starts a worker."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    mine = {} if raylet is None else {"RAY_RAYLET_PID": str(raylet.pid)}
    done = subprocess.run(
        [*forkserver.executable().split(), str(script), *words],
        env=kept | {"TMPDIR": str(script.parent), "OMP_NUM_THREADS": "1"} | mine | env,
        cwd=script.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script that tells what it sees."""
    path = tmp_path / "tell.py"
    path.write_text(SCRIPT)
    return path


def test_a_fork_has_what_its_starter_had(script: Path, raylet: "subprocess.Popen[bytes]") -> None:
    one, err = started(script, raylet, "a", COLOUR="red")
    two, _ = started(script, raylet, "b", OMP_NUM_THREADS="2")
    assert (one["name"], one["argv"]) == ("__main__", [str(script), "a"])
    assert (one["cwd"], one["here"]) == (str(script.parent), str(script.parent))
    assert (one["colour"], two["colour"]) == ("red", None)
    assert (one["threads"], two["threads"]) == (1, 2)
    assert one["parent"] == two["parent"], "one server"
    assert one["group"], "else Ray would end the server with the worker"
    assert not one["ray"], "forks of its core would draw the same IDs"
    assert err == "a fault\n"
    assert not set(one["chance"]) & set(two["chance"])  # type: ignore[call-overload]


def test_a_server_ends_with_its_raylet(script: Path, raylet: "subprocess.Popen[bytes]") -> None:
    said, _ = started(script, raylet)
    raylet.kill()
    raylet.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{said['parent']}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("reason", ["no raylet", "CUDA in use", "a folder open to others"])
def test_what_cannot_be_forked_is_started_all_the_same(
    reason: str, script: Path, raylet: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    if reason == "a folder open to others":
        (tmp_path / f"mailray-fork-{os.getuid()}").mkdir(mode=0o777)
        (tmp_path / f"mailray-fork-{os.getuid()}").chmod(0o777)
    code = f"from cluster import forkserver; forkserver.start([{str(script)!r}, 'fail'])"
    env = os.environ | {"TMPDIR": str(tmp_path)}
    if reason == "CUDA in use":  # as the last of LIBRARIES leaves it
        (tmp_path / "cuda").mkdir()
        spoils = "import torch; torch.cuda._is_in_bad_fork = lambda: True"
        (tmp_path / "cuda" / "uvloop.py").write_text(spoils)
        env["PYTHONPATH"] = f"{tmp_path / 'cuda'}:{Path(forkserver.__file__).parents[1]}"
    env.pop("RAY_RAYLET_PID", None)
    if reason != "no raylet":
        env["RAY_RAYLET_PID"] = str(raylet.pid)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out, _ = process.communicate(timeout=120)
    assert json.loads(out)["parent"] == os.getpid(), "the same process"
    assert process.returncode == 3


@ray.remote(num_cpus=0)
def _preloaded() -> tuple[int, bool]:
    return os.getppid(), "torch" in sys.modules


def test_rays_workers_are_forks(ray_session: None) -> None:
    parent, preloaded = ray.get(_preloaded.remote())
    command = Path(f"/proc/{parent}/cmdline").read_bytes()
    assert b"forkserver" in command
    assert preloaded
