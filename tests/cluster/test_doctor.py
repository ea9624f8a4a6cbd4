"""The preflight says what it found, with a remedy, and one fault does not hide another."""

import importlib.metadata
import io
import platform
from pathlib import Path

import pytest
from rich.console import Console

from cluster.doctor import (
    GIB,
    Check,
    Concern,
    Finding,
    available_memory,
    compare_versions,
    enough_cpus,
    examine,
    memory,
    package,
    packages,
    requirements,
    shared_memory,
    storage,
    table,
    versions_agree,
    worst,
)


def raising(error: Exception) -> Check:
    def run() -> str:
        raise error

    return Check("it", run, "do this")


def one(check: Check) -> Finding:
    (finding,) = examine([check])
    return finding


def test_each_check_is_run_and_only_faults_fail() -> None:
    findings = examine(
        [
            raising(OSError("broken\nbadly")),
            raising(Concern("slow")),
            Check("it", lambda: "fine", "do this"),
        ]
    )
    assert findings == [
        Finding("it", False, "broken badly", "do this"),
        Finding("it", None, "slow", "do this"),
        Finding("it", True, "fine", ""),
    ]
    assert worst(findings) == 1
    assert worst(findings[1:]) == 0


def test_the_table_shows_the_remedy_of_what_is_wrong() -> None:
    screen = Console(file=io.StringIO(), width=80)
    screen.print(
        table([Finding("disk", False, "[full]", "make room"), Finding("x", True, "y", "")])
    )
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    for word in ("fault", "disk", "[full]", "make room", "ok"):
        assert word in shown


def test_this_environment_is_within_the_declared_bounds() -> None:
    finding = one(packages())
    assert finding.ok, finding.detail
    assert f"ray {importlib.metadata.version('ray')}" in finding.detail


def test_every_package_out_of_bounds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    finding = one(packages())
    assert finding.ok is False
    assert "ray 0.0.1 is not" in finding.detail
    assert "torch 0.0.1 is not" in finding.detail
    assert "pytest" not in finding.detail


def test_another_python_patch_level_on_the_cluster_is_a_fault() -> None:
    ray = importlib.metadata.version("ray")
    assert ray in compare_versions(ray, platform.python_version())
    with pytest.raises(RuntimeError, match=r"runs Ray .* on Python 3\.0\.1, this driver"):
        compare_versions(ray, "3.0.1")


def test_a_cluster_that_does_not_answer_is_a_fault() -> None:
    finding = one(versions_agree("http://127.0.0.1:1"))
    assert finding.ok is False
    assert "no Ray job server answers" in finding.detail


def test_workers_that_take_every_cpu_are_a_fault() -> None:
    assert one(enough_cpus(workers=2, cpus_per_worker=3, total=4)).ok is False
    finding = one(enough_cpus(workers=2, cpus_per_worker=1, total=4))
    assert (finding.ok, finding.detail) == (
        True,
        "2 workers x 1 CPUs = 2 of 4",
    )


def test_storage_is_written_to_and_left_clean(tmp_path: Path) -> None:
    assert one(storage(tmp_path / "new", wanted=1)).ok is True
    assert list((tmp_path / "new").iterdir()) == []
    assert one(storage(tmp_path, wanted=1 << 60)).ok is None
    (tmp_path / "file").touch()
    assert one(storage(tmp_path / "file")).ok is False


def test_what_a_job_uploads_is_measured_without_what_is_ignored(tmp_path: Path) -> None:
    (tmp_path / ".rayignore").write_text("corpus/\n")
    (tmp_path / ".gitignore").write_text("*.log\n")
    for name, size in (("corpus/mail", 9000), ("a.log", 9000), ("code/a.py", 300), ("b.py", 100)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert one(package(tmp_path, most=1000)).ok is True
    finding = one(package(tmp_path, most=400))
    assert finding.ok is False
    assert "; code has 0.0 MiB" in finding.detail
    assert ".rayignore" in finding.remedy


def test_the_declared_packages_are_those_without_extras() -> None:
    names = {each.name for each in requirements()}
    assert {"ray", "torch"} <= names
    assert "pytest" not in names


def test_little_memory_is_a_warning(tmp_path: Path) -> None:
    assert one(memory(wanted=1)).ok is True
    assert one(memory(wanted=1 << 60)).ok is None
    assert one(shared_memory(tmp_path / "absent")).ok is None
    assert one(shared_memory(tmp_path, wanted=1 << 60)).ok is None


def test_memory_is_under_the_limit_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  8388608 kB\n")
    assert available_memory(tmp_path, tmp_path / "none") == 8 * GIB
    (tmp_path / "memory.max").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    assert available_memory(tmp_path, tmp_path) == 2 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, tmp_path) == 8 * GIB
