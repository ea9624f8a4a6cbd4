"""The console owns the terminal: run in a child, since it takes the process's descriptors."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import logging, os, subprocess, sys, time, warnings
from pathlib import Path
from cluster.console import Console
def garbage():
    print("from print"); print("from print 2", file=sys.stderr)
    os.write(1, b"from fd 1\\n"); os.write(2, b"from fd 2\\n")
    subprocess.run(["sh", "-c", "echo from a child; echo from a child 2 >&2"], check=True)
    warnings.warn("from a warning"); logging.getLogger("x").info("from a logger")
"""


def run(
    body: str, logs: Path, *, json_output: bool = True
) -> tuple[subprocess.CompletedProcess[str], str]:
    """A console around `body`; what came out, and what its log says."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    code = (
        f"{PRELUDE}\n"
        f"with Console.open('test', json_output={json_output}, logs=Path({str(logs)!r})) as c:\n"
        f"{lines}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    (log,) = logs.glob("test-*.log")
    return done, log.read_text()


def test_stdout_is_one_json_object_whatever_else_writes_to_it(tmp_path: Path) -> None:
    done, log = run(
        "garbage()\nc.result('human', {'nan': float('nan'), 'path': Path('/a'), 'n': (1, 2)})\n"
        "garbage()",
        tmp_path,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"nan": None, "path": "/a", "n": [1, 2]}
    assert done.stderr == ""
    for source in ("print", "print 2", "fd 1", "fd 2", "a child", "a child 2"):
        assert log.splitlines().count(f"from {source}") == 2
    assert "INFO x: from a logger" in log
    assert "from a warning" in log


def test_a_failure_is_a_line_for_each_fault_and_an_exit_code(tmp_path: Path) -> None:
    done, log = run("with c.stage('config'):\n    c.fail('a: wrong\\nb: [worse]', 2)", tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"error": {"message": "a: wrong\nb: [worse]", "code": 2}}
    first, second, *faults = done.stderr.splitlines()
    assert first == "config ..."
    assert re.fullmatch(r"config  \d\.\d s  failed", second)
    assert faults == ["mailray: a: wrong", "mailray: b: [worse]"]
    assert "Traceback" not in log


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    done, log = run("raise KeyError('gone')", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("mailray: unexpected KeyError: 'gone'\n")
    assert "Traceback" not in done.stderr
    assert "Traceback" in log
    assert json.loads(done.stdout)["error"]["code"] == 1


def test_without_a_terminal_a_stage_is_two_lines_and_paths_stay_whole(tmp_path: Path) -> None:
    path = "/a" * 150
    done, _ = run(
        "from rich.table import Table\n"
        f"t = Table('k', 'v'); t.add_row('[x]', {path!r})\n"
        "with c.stage('tokens') as s:\n"
        "    for i in range(100): s.update(f'{i} mails', i, 100)\n"
        f"    s.note({path!r})\n"
        "c.result(t, {})",
        tmp_path,
        json_output=False,
    )
    first, note, last = done.stderr.splitlines()
    assert (first, note) == ("tokens ...", path)
    assert re.fullmatch(r"tokens  99 mails  \d+\.\d s", last)
    assert path in done.stdout
    assert "[x]" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_table_can_be_a_note(tmp_path: Path) -> None:
    done, _ = run(
        "from rich.table import Table\n"
        "t = Table('k', 'v', box=None); t.add_row('[x]', 'a b'); c.note(t)",
        tmp_path,
        json_output=False,
    )
    assert done.stdout == ""
    assert [line.split() for line in done.stderr.splitlines()] == [["k", "v"], ["[x]", "a", "b"]]


def test_a_reader_that_leaves_early_causes_no_traceback(tmp_path: Path) -> None:
    body = "c.result('x' * 200_000 + '\\n' + 'y' * 200_000, {})\nc.result('z', {})"
    lines = body.replace("\n", "\n    ")
    code = (
        f"{PRELUDE}\nwith Console.open('test', json_output=False, logs=Path({str(tmp_path)!r}))"
        f" as c:\n    {lines}\n"
    )
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "$0" | head -c 5', code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "xxxxx", "")


def terminal(code: str, columns: int = 60, types: bytes = b"") -> str:
    """What a terminal is told by a child that runs `code`, while a person types."""
    child, leader = pty.fork()
    if child == 0:
        environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1"}
        environment.pop("COLUMNS", None)
        command = f'stty cols {columns} rows 20; exec "$0" -c "$1"'
        os.execvpe("sh", ["sh", "-c", command, sys.executable, code], environment)
    seen = b""
    os.write(leader, types)
    try:
        while part := os.read(leader, 4096):
            seen += part
    except OSError:  # Linux's word for the end of a terminal
        pass
    finally:
        os.close(leader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return seen.decode()


def test_on_a_terminal_a_stage_is_one_live_line_that_ends_with_a_check_mark(
    tmp_path: Path,
) -> None:
    seen = terminal(
        f"{PRELUDE}\n"
        f"with Console.open('test', json_output=False, logs=Path({str(tmp_path)!r})) as c:\n"
        "    with c.stage('tokens') as s:\n"
        "        for i in range(8):\n"
        "            s.update(f'{i} mails ' + 'long ' * 40, i, 7); garbage(); time.sleep(0.1)\n"
        "        s.update('7 mails', 7, 7)\n"
        "    try:\n"
        "        with c.stage('train'): raise ValueError\n"
        "    except ValueError: pass\n"
        "    c.result('done', {})\n"
    )
    assert "from" not in seen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    frames = [frame for frame in re.split(r"[\r\n]+", plain) if frame]
    live = [frame for frame in frames if "━" in frame]
    assert len(live) > 2
    assert max(map(len, live)) < 60
    assert re.fullmatch(r"✓ tokens  7 mails  \d+\.\d s", frames[-3])
    assert re.fullmatch(r"✗ train  \d+\.\d s", frames[-2])
    assert frames[-1] == "done"
    # No frame but the final ones ends in a line feed: the live line is overwritten in place.
    assert plain.count("\n") <= 4


@pytest.mark.parametrize(("types", "says"), [(b"y\n", True), (b"\n", False), (b"no\n", False)])
def test_a_person_at_the_terminal_is_asked(tmp_path: Path, types: bytes, says: bool) -> None:
    seen = terminal(
        f"{PRELUDE}\n"
        f"with Console.open('test', json_output=False, logs=Path({str(tmp_path)!r})) as c:\n"
        "    with c.stage('job'):\n"
        "        c.result(f'said {c.ask(\"stop the job?\")}', {})\n",
        types=types,
    )
    assert "stop the job? [y/N]" in seen
    assert f"said {says}" in seen


def test_where_nobody_sits_the_answer_is_no(tmp_path: Path) -> None:
    done, _ = run("c.result('', {'said': c.ask('stop the job?')})", tmp_path)
    assert json.loads(done.stdout) == {"said": False}
    assert done.stderr == ""
