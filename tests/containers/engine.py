"""Podman on this machine, and the image on it: built by `make image`, on a base that can be had.

Where no image registry answers, the base is stood in for by Debian of the same release with its own
Python, made by debootstrap. How packages are reached is this machine's own affair: its pip
configuration and certificates are mounted into the build, and IMAGE_OPTIONS adds to it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
IMAGE = f"localhost/mailray:{VERSION}"
UPSTREAM: str = re.findall(r"^ARG BASE=(.+)$", (ROOT / "cluster/Dockerfile").read_text(), re.M)[0]
STAND_IN = "localhost/mailray-base:bookworm"
CERTIFICATES = Path("/etc/ssl/certs")
NEEDED = ("podman", "runc", "iptables", "make")


class EngineError(RuntimeError):
    """Podman did not do it; the message has its last words."""


def missing() -> str:
    """Why containers cannot be tested here; empty where they can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return (
            f"{', '.join(absent)} not on PATH (Debian: apt-get install podman runc iptables make)"
        )
    return "" if os.geteuid() == 0 else "a shared folder is given to uid 1000: needs root"


def configure(folder: Path) -> None:
    """Where limits cannot be raised and cgroups are hybrid, podman's own defaults fail."""
    conf = folder / "containers.conf"
    conf.write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n'
        '[engine]\nruntime = "runc"\n'
    )
    os.environ["CONTAINERS_CONF"] = str(conf)


def podman(*words: str, timeout: float = 120, check: bool = True) -> str:
    """What a podman command says, its fault as an EngineError."""
    done = subprocess.run(
        ["podman", *words], capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise EngineError(f"podman {words[0]}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout.strip()


@cache
def base(folder: Path) -> str:
    """The base image: upstream's where a registry answers, else a stand-in of the same release."""
    with suppress(EngineError, subprocess.TimeoutExpired):
        podman("pull", "--quiet", UPSTREAM, timeout=60)
        return UPSTREAM
    if podman("images", "--quiet", STAND_IN):
        return STAND_IN
    if shutil.which("debootstrap") is None:
        raise EngineError(f"{UPSTREAM} cannot be pulled, and there is no debootstrap for another")
    root = folder / "base"
    subprocess.run(
        [
            "debootstrap", "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates,wget", "bookworm", str(root), mirror(),
        ],
        check=True, stdout=subprocess.DEVNULL, timeout=400,
    )  # fmt: skip
    (root / "usr/bin/python").symlink_to("python3")
    pack = ["tar", "-C", str(root), "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tree:
        subprocess.run(
            ["podman", "import", "--quiet", "-", STAND_IN],
            stdin=tree.stdout, check=True, stdout=subprocess.DEVNULL, timeout=200,
        )  # fmt: skip
    assert tree.returncode == 0
    shutil.rmtree(root)
    return STAND_IN


def mirror() -> str:
    """Where apt gets Debian from on this machine."""
    wanted = ["--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"]
    said = subprocess.run(
        ["apt-get", "indextargets", *wanted], capture_output=True, text=True, check=True
    ).stdout.split()
    if not said:
        raise EngineError("apt knows no mirror of bookworm; run apt-get update")
    return said[0]


def build(folder: Path) -> None:
    """`make image`, with what this machine reaches its packages by."""
    options = f"--network host --build-arg BASE={base(folder)} {packages(folder)}"
    command = ["make", "--silent", "image", "ENGINE=podman", f"IMAGE_OPTIONS={options}"]
    with (folder / "build.log").open("w+") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=1200, check=False)
        if done.returncode:
            log.seek(0)
            raise EngineError(f"make image: {log.read()[-3000:]}")


def packages(folder: Path) -> str:
    """Mounts of this machine's pip configuration, the folders it names, and its certificates."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    kept = re.findall(
        r"^(?:global|:env:)\.((?:extra-)?index-url|find-links|cert)='(.*)'$", listed, re.M
    )
    conf = folder / "pip.conf"
    lines = [f"{key} = {value}" for key, value in dict(kept).items()]
    conf.write_text("\n".join(["[global]", *lines, "timeout = 120", ""]))
    mounts = {str(conf): "/etc/pip.conf"}
    for value in dict(kept).values():
        for place in value.split():
            path = Path(place.removeprefix("file://"))
            path = path.parent if path.name == "simple" else path  # files lie beside the index
            if path.is_dir():
                mounts[str(path)] = str(path)
    if CERTIFICATES.is_dir():
        mounts[str(CERTIFICATES)] = str(CERTIFICATES)
    words = [f"--volume {here}:{there}:ro" for here, there in mounts.items()]
    return " ".join([*words, os.environ.get("IMAGE_OPTIONS", "")])


def new_folder() -> Path:
    """A folder of a short path, which containers may enter whoever they are."""
    folder = Path(tempfile.mkdtemp(prefix="mrc-", dir="/tmp"))
    folder.chmod(0o755)
    return folder
