"""The images that `k8s/` names, as this machine can have them.

Where a registry answers, Redis, PostgreSQL and the S3 server are the ones that the manifests name;
elsewhere they are made from Debian's and PyPI's packages, see `images/Dockerfile`.
"""

import shlex
import subprocess
from pathlib import Path

from tests.containers import engine

NAMES = {"redis": "redis", "postgres": "postgres", "versity/versitygw": "versitygw"}
"""What is stood in for, and by which target of the Dockerfile."""


def images(folder: Path) -> dict[str, str]:
    """Images of this machine by the manifests' names; podman pulls what is not among them."""
    if engine.base(folder) != engine.STAND_IN:
        return {"mailray": engine.IMAGE}
    tags = {name: f"localhost/mailray-{target}:stand-in" for name, target in NAMES.items()}
    for name, target in NAMES.items():
        _build(folder, target, tags[name])
    return {"mailray": engine.IMAGE, **tags}


def _build(folder: Path, target: str, tag: str) -> None:
    here = Path(__file__).parent / "images"
    # The certificates are mounted read-only, and a package that PostgreSQL needs adds to them.
    reach = shlex.split(engine.packages(folder)) if target == "versitygw" else []
    done = subprocess.run(
        [
            "podman", "build", "--quiet", "--target", target, "--tag", tag, "--network", "host",
            "--build-arg", f"BASE={engine.STAND_IN}", *reach, str(here),
        ],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    if done.returncode:
        raise engine.EngineError(f"{target}: {(done.stderr or done.stdout)[-2000:]}")
