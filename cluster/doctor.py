"""The preflight: what would stop or slow a run, found before it starts, each with its remedy.

    findings = examine([packages(), storage(Path(".mailray")), memory(), shared_memory()])
    console.result(table(findings), {"findings": [asdict(finding) for finding in findings]})
    raise SystemExit(worst(findings))

A check is a function that returns a detail, or raises: any exception is a fault, `Concern` a
warning. Checks that need mail or models are handed in by the command line.
"""

import importlib.metadata
import logging
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.table import Table
from rich.text import Text

from cluster.dashboard import cluster_versions

GIB = 1 << 30
MIB = 1 << 20
DISTRIBUTION = "mailray"
SHOWN = ("ray", "torch", "transformers")


class Concern(Exception):
    """Not as it should be, and yet a run can start."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at, and what helps where it is not right."""

    name: str
    run: Callable[[], str]
    """Returns the detail, or raises with the reason."""
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    name: str
    ok: bool | None
    """None is a warning."""
    detail: str
    remedy: str
    """Empty where all is well."""


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Run every check, whatever the others say."""
    return [_examine(check) for check in checks]


def worst(findings: Sequence[Finding]) -> int:
    """The exit code: 1 where a check failed; warnings are 0."""
    return int(any(finding.ok is False for finding in findings))


def table(findings: Sequence[Finding]) -> Table:
    """A row a finding, its remedy below the detail."""
    marks = {
        True: Text("ok", "green"),
        None: Text("warning", "yellow"),
        False: Text("fault", "red"),
    }
    rows = Table("", "check", "detail", box=None, pad_edge=False, header_style="dim")
    for finding in findings:
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append(f"\n{finding.remedy}", "cyan")
        rows.add_row(marks[finding.ok], finding.name, detail)
    return rows


def packages() -> Check:
    """Python and every package are within the bounds that mailray declares."""

    def run() -> str:
        try:
            declared = importlib.metadata.metadata(DISTRIBUTION)
        except importlib.metadata.PackageNotFoundError:
            raise Concern(f"{DISTRIBUTION} is not installed here, its bounds are unknown") from None
        python = platform.python_version()
        faults = []
        if python not in SpecifierSet(declared["Requires-Python"] or ""):
            faults.append(f"Python {python} is not {declared['Requires-Python']}")
        shown = [f"Python {python}"]
        for wanted in requirements():
            try:
                found = importlib.metadata.version(wanted.name)
            except importlib.metadata.PackageNotFoundError:
                faults.append(f"{wanted.name} is missing")
                continue
            if not wanted.specifier.contains(found, prereleases=True):
                faults.append(f"{wanted.name} {found} is not {wanted.specifier}")
            if wanted.name in SHOWN:
                shown.append(f"{wanted.name} {found}")
        if faults:
            raise RuntimeError("; ".join(faults))
        return ", ".join(shown)

    return Check("packages", run, f"install again: `pip install --upgrade {DISTRIBUTION}`")


def requirements() -> list[Requirement]:
    """The packages that mailray declares, without extras; none where it is not installed."""
    try:
        declared = map(Requirement, importlib.metadata.requires(DISTRIBUTION) or ())
    except importlib.metadata.PackageNotFoundError:
        return []
    return [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]


def versions_agree(address: str | None) -> Check:
    """The cluster behind a job server runs this Ray, and this Python to the patch level."""
    return Check(
        "cluster",
        lambda: compare_versions(*cluster_versions(address)),
        "where versions differ: run the command from the cluster's image, or build it from here",
    )


def compare_versions(ray: str, python: str) -> str:
    """The versions as one line; RuntimeError where the driver's own differ from the cluster's."""
    here = (importlib.metadata.version("ray"), platform.python_version())
    if (ray, python) != here:
        raise RuntimeError(
            f"the cluster runs Ray {ray} on Python {python}, this driver Ray {here[0]} on "
            f"Python {here[1]}"
        )
    return f"Ray {ray}, Python {python} on both sides"


def enough_cpus(*, workers: int, cpus_per_worker: int, total: int) -> Check:
    """The training workers fit on the `total` CPUs."""

    def run() -> str:
        taken = workers * cpus_per_worker
        detail = f"{workers} workers x {cpus_per_worker} CPUs = {taken} of {total}"
        if taken > total:
            raise RuntimeError(f"{detail}: the run would wait for ever")
        return detail

    return Check("CPUs", run, "fewer scaling.workers or scaling.cpus, or a larger cluster")


def storage(path: Path, *, wanted: int = 5 * GIB) -> Check:
    """`path` takes a file, for good, and has `wanted` bytes free."""

    def run() -> str:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as probe:
            probe.write(b"mailray\n")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(path).free
        detail = f"{path} is writable, {free / GIB:.1f} GiB free"
        if free < wanted:
            raise Concern(f"{detail}; checkpoints and caches want {wanted / GIB:.0f} GiB")
        return detail

    return Check("storage", run, "choose another directory, or make room on its disk")


def package(root: Path, *, most: int = 100 << 20) -> Check:
    """What `mailray submit` uploads of `root` is below `most` bytes: Ray's job server's limit."""

    def run() -> str:
        from ray._private.runtime_env.packaging import _dir_travel

        sizes: Counter[str] = Counter()

        def add(path: Path) -> None:
            if path.is_file():
                sizes[path.relative_to(root).parts[0]] += path.stat().st_size

        quiet = logging.getLogger(f"{__name__}.package")
        quiet.setLevel(logging.ERROR)
        _dir_travel(root, [], add, include_gitignore=True, logger=quiet)
        detail = f"{sizes.total() / MIB:.1f} MiB of {root}, the limit is {most / MIB:.0f}"
        if sizes.total() >= most:
            name, size = sizes.most_common(1)[0]
            raise RuntimeError(f"{detail}; {name} has {size / MIB:.1f} MiB")
        return detail

    return Check("package", run, "name what a job does not need in .rayignore")


def memory(*, wanted: int = 4 * GIB) -> Check:
    """`wanted` bytes of memory are available, under the limit of a container."""

    def run() -> str:
        available = available_memory()
        detail = f"{available / GIB:.1f} GiB available"
        if available < wanted:
            raise Concern(f"{detail}; a run wants {wanted / GIB:.0f} GiB")
        return detail

    return Check("memory", run, "end other processes, or use fewer scaling.workers")


def shared_memory(path: Path = Path("/dev/shm"), *, wanted: int = GIB) -> Check:
    """/dev/shm holds Ray's object store; a container's default is 64 MiB."""

    def run() -> str:
        if not path.is_dir():
            raise Concern(f"there is no {path}: Ray keeps its objects in files, slower")
        free = shutil.disk_usage(path).free
        if free < wanted:
            raise Concern(f"{path} has {free >> 20} MiB: Ray spills its objects to disk")
        return f"{path} has {free / GIB:.1f} GiB"

    return Check("shared memory", run, "docker: --shm-size=8g; Kubernetes: an emptyDir of Memory")


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that new processes can use: the machine's, or what is left to this container."""
    lines = (proc / "meminfo").read_text("ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
    except (OSError, ValueError):  # no cgroup v2, or the limit is "max"
        return available
    return min(available, max(limit - used, 0))


def _examine(check: Check) -> Finding:
    try:
        return Finding(check.name, True, check.run(), "")
    except Concern as concern:
        return Finding(check.name, None, str(concern), check.remedy)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(check.name, False, reason, check.remedy)
