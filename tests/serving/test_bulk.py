"""Bulk classification: a row for each mail of a source, with the verdicts of the classifier."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.commands.bulk import _chosen
from serving import bulk, parts, reading
from serving.bulk import BulkError, Score
from serving.classifier import Classifier, Verdict
from serving.decision import Decision
from serving.reading import Task, read_parts
from training import synthetic
from training.bundle import KINDS, Bundle, BundleError, Export
from training.export import export
from training.schema import ConfigError
from training.sources import Source, SourceError, open_source
from training.stages import Quiet

MAIL = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PART_MAILS", 8)


def _open(name: Path | str) -> Source:
    return open_source(str(name), None, Path("nowhere"))


def _begin(bundle: Bundle, source: Source, folder: Path) -> dict[str, Any]:
    facts = parts.manifest(bundle, source, Decision.of(bundle), "torch", "fp32")
    parts.begin(folder, facts)
    return facts


def _rows(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))]
    return list(pa.concat_tables(tables).to_pylist())


def _by_hand(bundle: Bundle, source: Source, folder: Path) -> list[dict[str, Any]]:
    """What tasks and actors do, without a Ray."""
    _begin(bundle, source, folder)
    score = Score(str(bundle.path), "torch", "fp32", "auto", str(folder))
    return [
        score(table)
        for number, piece in enumerate(source.pieces)
        for table in read_parts({"task": [Task(number, piece, frozenset())]}, str(bundle.path))
    ]


def test_every_mail_is_a_row_with_the_verdict_of_the_classifier(
    bundle: Bundle, tmp_path: Path
) -> None:
    _by_hand(bundle, _open("synthetic:30"), tmp_path)
    assert [file.name for file in sorted(tmp_path.glob("part-*"))] == [
        "part-000000-00000.parquet", "part-000000-00001.parquet", "part-000000-00002.parquet",
        "part-000000-00003-end.parquet",
    ]  # fmt: skip
    expected = Classifier(bundle.path, "fp32").classify_raw(
        [raw for _, _, raw in synthetic.mails(30)]
    )
    for (id_, label, _), row, verdict in zip(
        synthetic.mails(30), _rows(tmp_path), expected, strict=True
    ):
        assert (row["id"], row["source_label"], row["error"]) == (id_, label, None)
        assert (row["label"], row["unsure"]) == (verdict.label, verdict.unsure)
        assert row["probability"] == pytest.approx(verdict.probability, abs=1e-6)
        assert row["tokens"] > 10
        assert row["p_spam"] == pytest.approx(verdict.scores["spam"], abs=1e-6)
        assert (row["model"], row["version"]) == (verdict.model, "7")


def test_what_is_no_mail_is_a_row_with_a_reason(bundle: Bundle, tmp_path: Path) -> None:
    for number, content in enumerate([MAIL, b"", b"\x89PNG\r\n\x1a\n" + bytes(99), MAIL]):
        (tmp_path / "mail").mkdir(exist_ok=True)
        (tmp_path / "mail" / str(number)).write_bytes(content)
    _by_hand(bundle, _open(tmp_path / "mail"), tmp_path / "out")
    rows = _rows(tmp_path / "out")
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert all((row["label"] is None) == (row["error"] is not None) for row in rows)


def test_a_mail_that_the_model_fails_on_harms_no_other(bundle: Bundle, tmp_path: Path) -> None:
    source = _open("synthetic:20")
    _begin(bundle, source, tmp_path)
    score = Score(str(bundle.path), "torch", "fp32", "auto", str(tmp_path))
    [first, *rest] = read_parts(
        {"task": [Task(0, source.pieces[0], frozenset())]}, str(bundle.path)
    )
    bad = first.to_pylist()[0]["tokens"][3]
    real = score._classifier.verdicts

    def verdicts(tokens: Sequence[list[int]]) -> list[Verdict]:
        if bad in tokens:
            raise RuntimeError("out of memory")
        return real(tokens)

    score._classifier.verdicts = verdicts  # type: ignore[method-assign]
    for table in (first, *rest):
        assert score(table)["fault"] == [None]
    errors = {row["id"]: row["error"] for row in _rows(tmp_path) if row["error"]}
    assert errors == {"synthetic/000003": "the model failed on it: RuntimeError"}


def test_faults_that_end_the_job_come_as_rows(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "m.mbox"
    file.write_bytes(b"From a Mon Jan  1 00:00:00 2024\n" + MAIL)
    source = _open(file)
    file.write_bytes(file.read_bytes() + b"more")
    [said] = _by_hand(bundle, source, tmp_path / "out")
    assert "SourceError" in said["fault"][0]
    assert "has changed while it was read" in said["fault"][0]
    elsewhere = Score(str(bundle.path), "torch", "fp32", "auto", str(tmp_path / "not-shared"))
    [table, *_] = read_parts(
        {"task": [Task(0, _open("synthetic:3").pieces[0], frozenset())]}, str(bundle.path)
    )
    assert "storage that all nodes share" in elsewhere(table)["fault"][0]


def test_an_exported_model_scores_in_its_own_runtime(bundle: Bundle, tmp_path: Path) -> None:
    exported = export(bundle, tmp_path / "both", KINDS[0], None, Quiet())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / parts.MANIFEST).touch()
    score = Score(str(exported.path), "onnx", "auto", "auto", str(tmp_path / "out"))
    tasks = {"task": [Task(0, _open("synthetic:8").pieces[0], frozenset())]}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for table in read_parts(tasks, str(exported.path)):
            assert score(table)["fault"] == [None]
    finally:
        torch.set_num_threads(before)
    assert score._classifier.info.runtime == "onnx"
    forward: Any = score._classifier.scorer.forward
    assert forward._sessions._idle.keys() == {1}  # there is a model for each core
    assert all(row["label"] for row in _rows(tmp_path / "out"))


def test_the_runtime_is_chosen_once_and_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    exported = replace(bundle, exports=(Export("int8", "0", 0),))
    made: list[tuple[Any, ...]] = []

    class Fast:
        runtime, precision = "onnx", "int8"

        def __init__(self, *given: Any, **threads: int) -> None:
            made.append(given)

    monkeypatch.setattr("training.scorer.Scorer", Fast)
    out = tmp_path / "out"
    assert _chosen(bundle, "auto", "auto", out, None) == ("torch", "auto")
    assert _chosen(exported, "torch", "fp32", out, None) == ("torch", "fp32")
    # Of a cluster's machines this one is no measure.
    assert _chosen(exported, "auto", "auto", out, "ray://head:10001") == ("torch", "auto")
    assert made == []
    assert _chosen(exported, "auto", "auto", out, None) == ("onnx", "int8")
    assert len(made) == 1
    with pytest.raises(BundleError, match="no runtime=onnx with precision=auto"):
        _chosen(bundle, "onnx", "auto", out, None)

    begun = parts.manifest(bundle, _open("synthetic:3"), Decision.of(bundle), "torch", "bf16")
    parts.begin(out, begun)
    assert _chosen(exported, "auto", "auto", out, None) == ("torch", "bf16")
    older = {key: value for key, value in begun.items() if key != "runtime"}
    (out / parts.MANIFEST).write_text(json.dumps(older))
    assert _chosen(exported, "auto", "auto", out, None) == ("torch", "bf16")
    parts.begin(out, begun)
    with pytest.raises(ConfigError, match="begun with runtime torch; this call has runtime onnx"):
        parts.begin(out, begun | {"runtime": "onnx"})


@pytest.mark.usefixtures("ray_session")
def test_only_what_is_missing_is_scored(bundle: Bundle, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"id": str(n), "body": f"mail {n}"}) for n in range(1_500))
    (tmp_path / "m.jsonl").write_text(lines)
    source, out = _open(tmp_path / "m.jsonl"), tmp_path / "out"
    facts = _begin(bundle, source, out)
    told = bulk.classify(bundle, source, out, Quiet(), precision="fp32", workers=2)
    before = _rows(out)
    assert told["scored"] == 1_500
    assert [row["id"] for row in before] == [str(n) for n in range(1_500)]
    files = sorted(out.glob("part-*"))
    times = {file: file.stat().st_mtime_ns for file in files}
    for file in (files[1], files[-1]):
        file.unlink()
    lost = 1_500 - parts.mails(out)
    told = bulk.classify(bundle, source, out, Quiet(), precision="fp32", workers=2)
    assert told["scored"] == lost
    assert _rows(out) == before
    assert sum(file.stat().st_mtime_ns != times[file] for file in files) == 2
    assert parts.summarize(out, facts, bundle)["mails"] == 1_500
    assert bulk.classify(bundle, source, out, Quiet())["scored"] == 0


@pytest.mark.usefixtures("ray_session")
def test_faults_of_tasks_and_actors_are_raised_by_name(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "m.mbox"
    file.write_bytes(b"From a Mon Jan  1 00:00:00 2024\n" + MAIL)
    source = _open(file)
    _begin(bundle, source, tmp_path / "out")
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(SourceError, match="has changed while it was read"):
        bulk.classify(bundle, source, tmp_path / "out", Quiet())
    (tmp_path / "not-shared").mkdir()
    with pytest.raises(BulkError, match="storage that all nodes share"):
        bulk.classify(bundle, _open("synthetic:3"), tmp_path / "not-shared", Quiet())
