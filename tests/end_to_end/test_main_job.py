"""The main job as its users have it: trained, killed, resumed, submitted, served, agreed on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.terminal import COMMAND, ROOT, environment, run
from training import synthetic

pytestmark = pytest.mark.slow


def test_every_command_has_help_with_an_example(home: Path) -> None:
    commands = [
        "train", "evaluate", "report", "compare", "tune", "export", "serve", "classify", "submit",
        "doctor", "quickstart", "data fetch", "data prepare", "data show", "data suspects",
        "data clean",
    ]  # fmt: skip
    for words in commands:
        said = run(home, *words.split(), "--help")
        assert said.code == 0
        assert "Example: mailray" in said.out


def test_a_run_killed_with_sigkill_goes_on_where_it_stood(home: Path) -> None:
    words = ["train", "--recipe", "smoke", "optimizer.epochs=40", "optimizer.patience=40"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--json"], cwd=ROOT, env=environment(home),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*/checkpoints/e*/state.json")):
        assert time.monotonic() < deadline, "no checkpoint"
        assert process.poll() is None, "ended before the kill"
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = run(home, *words, "--resume", "--json")
    assert said.code == 0, said.err
    [line] = [line for line in said.err.splitlines() if "goes on at epoch" in line]
    assert "epoch 1, step 1:" not in line
    assert len(list((home / "runs").iterdir())) == 1
    assert said.json["metrics"]["test"]["accuracy"] > 0.8
    assert json.loads(next((home / "runs").glob("*/run.json")).read_text())["state"] == "done"


@contextmanager
def _server(home: Path, *words: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*COMMAND, "serve", *words, "--json"], cwd=ROOT, env=environment(home),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)  # a background shell has SIGINT ignored
        process.stdout.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_evaluate_serve_classify_and_bulk_agree_on_each_mail(
    smoke_home: Path, tmp_path: Path, free_port: int, precision: str, tolerance: float
) -> None:
    for id_, label, raw in synthetic.mails(100):
        (tmp_path / "mail" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mail" / label / f"{Path(id_).name}.eml").write_bytes(raw)
    said = run(
        smoke_home, "evaluate", "--model", "mailray-smoke", "--source", str(tmp_path / "mail"),
        "--precision", precision, "--predictions", str(tmp_path / "p.parquet"), "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["mails"] == 100
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    files = [str(tmp_path / "mail" / row["id"]) for row in rows]

    asked = ["classify", *files, "--json"]
    direct = run(smoke_home, *asked, "--model", "mailray-smoke", "--precision", precision)
    model = ["--model", "mailray-smoke", f"precision={precision}", f"port={free_port}"]
    with _server(smoke_home, *model) as url:
        served = run(smoke_home, *asked, "--url", url)
    assert (direct.code, served.code) == (0, 0), direct.err + served.err
    words = ["--bulk", str(tmp_path / "mail"), "--out", str(tmp_path / "bulk"), "--json"]
    said_in_bulk = run(
        smoke_home, "classify", *words, "--model", "mailray-smoke", "--precision", precision
    )
    assert (said_in_bulk.code, said_in_bulk.json["mails"]) == (0, 100), said_in_bulk.err
    parts = pq.read_table([*(tmp_path / "bulk").glob("part-*.parquet")]).to_pylist()
    in_bulk = {row["id"]: row for row in parts}
    for row, one, two in zip(rows, direct.json["mails"], served.json["mails"], strict=True):
        three = in_bulk[row["id"]]
        assert (three["label"], three["version"]) == (one["label"], one["version"])
        assert three["p_spam"] == pytest.approx(row["p_spam"], abs=tolerance)
        assert row["predicted"] == one["label"] == two["label"]
        assert one["version"] == two["version"] == said.json["version"]
        for answer in (one, two):
            assert answer["scores"]["spam"] == pytest.approx(row["p_spam"], abs=tolerance)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_export_is_checked_on_the_models_own_test_mails_and_serves(
    smoke_home: Path, tmp_path: Path, runtime: str
) -> None:
    place = tmp_path / "int8"
    kind = ["--runtime", runtime, *(["--int8"] if runtime == "onnx" else [])]
    words = ["export", "mailray-smoke", *kind, "--out", str(place), "--json"]
    said = run(smoke_home, *words)
    assert said.code == 0, said.err
    assert said.json["check"]["mails"] > 20
    assert 0 < said.json["check"]["largest"] < 0.1
    figures = [
        run(smoke_home, "evaluate", "--model", str(place), "--runtime", one, "--json")
        for one in (runtime, "torch")
    ]
    assert [found.code for found in figures] == [0, 0], figures[0].err + figures[1].err
    [graph, torch] = (found.json for found in figures)
    assert (graph["runtime"], torch["runtime"]) == (runtime, "torch")
    assert graph["accuracy"] == pytest.approx(torch["accuracy"], abs=0.02)
    assert graph["loss"] != torch["loss"]
    (tmp_path / "a.eml").write_bytes(next(iter(synthetic.mails(1)))[2])
    said = run(smoke_home, "classify", str(tmp_path / "a.eml"), "--model", str(place), "--json")
    assert said.code == 0, said.err


def test_suspected_labels_are_listed_by_id_and_a_model_stands_beside_its_baselines(
    smoke_home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "suspects.csv"
    words = ["data", "suspects", "data.source=synthetic:300", "model.name=tiny"]
    said = run(smoke_home, *words, "--output", str(file), "--json")
    assert said.code == 0, said.err
    assert said.json["mails"] == 300
    wrong = [id_ for at, (id_, _, _) in enumerate(synthetic.mails(300)) if at % 30 == 7]
    assert len({row["id"] for row in said.json["suspects"][:10]} & set(wrong)) >= 8
    assert len(file.read_text().splitlines()) == 1 + len(said.json["suspects"])

    said = run(smoke_home, "data", "suspects", "--model", "mailray-smoke")
    assert said.code == 0, said.err
    assert "are suspected of a wrong label" in said.out

    said = run(smoke_home, "evaluate", "--model", "mailray-smoke")
    assert said.code == 0, said.err
    names = ["this model", "byte 4-grams", "TF-IDF words"]
    rows = [line.strip() for line in said.out.splitlines()]
    assert [name for name in names for row in rows if row.startswith(name)] == names


def test_a_report_is_written_where_it_is_asked_for_and_replaces_the_old(
    smoke_home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "r.html"
    file.write_text("old")
    words = ["report", "mailray-smoke", "--output", str(file), "--no-robustness", "--json"]
    said = run(smoke_home, *words)
    assert said.code == 0, said.err
    assert said.json["report"] == str(file)
    hidden = file.read_text("utf-8")
    assert f"{said.json['mails']} test mails" in hidden
    assert "synthetic/" in hidden, "wrong mails are named by their ids"
    assert "@example.com" not in hidden
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert run(smoke_home, *words, "--show-content").code == 0
    assert "@example.com" in file.read_text("utf-8")


def test_a_job_on_another_head_brings_back_its_exit_code(head: str, home: Path) -> None:
    said = run(home, "submit", "--address", head, "--", "train", "--recipe", "smoke")
    assert said.code == 0, said.err
    assert "registry" in said.err
    assert len(list((home / "runs").glob("smoke-*/bundle"))) == 1

    said = run(home, "submit", "--address", head, "--", "train", "optimizer.speed=3")
    assert said.code == 2
    faults = [line for line in said.err.splitlines() if "no such key" in line]
    assert len(faults) == 1
    assert "Traceback" not in said.err


def test_the_terminal_shows_no_line_of_ray(home: Path) -> None:
    """On a pseudo-terminal, where the live line is drawn."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(COMMAND[0], [*COMMAND, "train", "--recipe", "smoke"], environment(home))
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # the end, on Linux
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    text = shown.decode(errors="replace")
    for word in ("INFO", "WARN", "ray::", "pid=", "Traceback", "Deprecat"):
        assert word not in text
    assert "registry" in text
