"""Provenance: which code, on which machine, from which mail; as words that a tracker can keep."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from training.gauges import gpu_names
from training.splits import SPLITS

if TYPE_CHECKING:
    from training.mails import Mails

PACKAGES = ("mailray", "torch", "transformers", "ray")


def provenance(mails: "Mails") -> dict[str, str]:
    """The commit if it is known, versions, the driver's machine, and the mail of each split.

    `data.fingerprint` changes whenever a mail, a label or the set of them does.
    """
    counts = {f"data.{name}": str(len(mails.on(name))) for name in SPLITS}
    return code() | machine() | {"data.fingerprint": mails.fingerprint} | counts


@cache
def code() -> dict[str, str]:
    """`commit`, with `-dirty` where files differ from it; and the packages' versions."""
    found = commit()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # mailray itself, from a folder that was uploaded
            continue
    return ({"commit": found} if found else {}) | versions


def commit(file: Path = Path(__file__)) -> str | None:
    """Of the checkout that has this file; elsewhere what MAILRAY_REVISION says, as in the image."""
    where = ["git", "-C", str(file.parent)]
    try:
        # Asked by name: site-packages may lie in a checkout of something else.
        _said([*where, "ls-files", "--error-unmatch", file.name])
        dirty = bool(_said([*where, "status", "--porcelain", "--untracked-files=no"]))
        return _said([*where, "rev-parse", "HEAD"]) + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("MAILRAY_REVISION") or None


@cache
def machine() -> dict[str, str]:
    """`python`, `cpu` and `gpu`, as far as they are known."""
    found = {"python": platform.python_version(), "cpu": f"{os.cpu_count()} x {_cpu()}"}
    if names := gpu_names():
        found["gpu"] = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
