"""Exports: every kind of model scores alike in another runtime, or is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.training.exported import TEXTS, made, sample, tokens, with_all
from training import export as exporting
from training import graph
from training.bundle import EXPORTED, FILES, KINDS, Bundle, BundleError, Kind, load
from training.export import TOLERANCES, Tolerance, export
from training.graph import ExportError
from training.home import Home
from training.scorer import Scorer
from training.sources import SourceError
from training.stages import Quiet

FP32, OPENVINO, INT8 = KINDS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_all(tmp_path_factory.mktemp("export"))


@pytest.mark.parametrize(
    ("pooling", "head", "labels", "multi", "wide"),
    [
        ("mean", "softmax", 2, False, True),
        ("cls", "softmax", 3, False, False),
        ("pooler", "sigmoid", 2, False, False),
        ("mean", "sigmoid", 3, True, True),
    ],
)
def test_an_export_scores_as_the_model_does(
    tmp_path: Path, pooling: str, head: str, labels: int, multi: bool, wide: bool
) -> None:
    plain = made(tmp_path / "plain", pooling, head, labels, multi=multi, wide=wide)
    mails = tokens(plain)
    found = export(plain, tmp_path / "out", FP32, sample(plain), Quiet())
    assert found == load(tmp_path / "out")
    exact = Scorer(plain, "fp32").score(mails)
    scorer = Scorer(found, runtime="onnx")
    assert (scorer.runtime, scorer.precision) == ("onnx", "fp32")
    np.testing.assert_allclose(scorer.score(mails), exact, atol=1e-5)
    alone = np.concatenate([scorer.score([mail]) for mail in mails])
    np.testing.assert_allclose(alone, exact, atol=1e-5)
    assert np.ptp(exact[:, 0]) > 1e-4  # else all of this would say nothing


@pytest.mark.parametrize("kind", [INT8, OPENVINO], ids=str)
def test_int8_is_near_and_smaller(bundle: Bundle, kind: Kind) -> None:
    mails = tokens(bundle)
    size = {export.kind: export.bytes for export in bundle.exports}
    assert size[kind] < 0.5 * size[FP32]
    exact = Scorer(bundle, "fp32").score(mails)
    scorer = Scorer(bundle, kind.precision, kind.runtime)
    found = scorer.score(mails)
    assert 0 < np.abs(found - exact).max() < 0.1
    alone = np.concatenate([scorer.score([mail]) for mail in mails])
    np.testing.assert_allclose(alone, found, atol=0.02)  # a batch is of one range in ONNX Runtime
    again = scorer.score(mails)
    np.testing.assert_array_equal(again, found)


def test_openvino_tells_nobody_that_it_was_imported(bundle: Bundle) -> None:
    assert {"openvino", "nncf"} <= sys.modules.keys()
    assert sys.modules["openvino_telemetry"] is None


def test_ranges_are_fitted_on_mails_that_scores_are_not_compared_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = made(tmp_path / "plain")
    table = pa.table({"tokens": [[n] for n in range(400)]})
    mails = SimpleNamespace(
        cache=SimpleNamespace(table=lambda: table), on={"train": np.arange(100, 400)}.get
    )
    rows = np.arange(100)
    monkeypatch.setattr(exporting, "allowed", lambda *_: (mails, rows))
    place = (Home(tmp_path), Quiet())
    own = exporting.sample(plain, *place, None, "test", fit=True)
    assert own.check == [[n] for n in range(100)]
    assert (len(own.fit), min(own.fit), max(own.fit)) == (100, [100], [399])
    assert exporting.sample(plain, *place, None, "test", fit=False).fit == []
    other = exporting.sample(plain, *place, "elsewhere", "test", fit=True)
    assert other.fit == [[n] for n in range(0, 100, 3)]
    assert sorted(other.fit + other.check) == [[n] for n in range(100)]
    rows = rows[:1]
    with pytest.raises(SourceError, match="elsewhere has 1 mail; one to fit on and one to check"):
        exporting.sample(plain, *place, "elsewhere", "test", fit=True)
    rows = rows[:0]
    with pytest.raises(SourceError, match=r"elsewhere has no test mail .* name held-out mail"):
        exporting.sample(plain, *place, "elsewhere", "test", fit=True)


def test_an_exported_bundle_says_what_it_has(bundle: Bundle) -> None:
    files = {path.name for path in bundle.path.iterdir()}
    assert files == FILES | EXPORTED
    assert not [path for path in bundle.path.parent.iterdir() if path.name.startswith(".")]
    assert "not checked" in (bundle.path / "README.md").read_text()
    facts = json.loads((bundle.path / "bundle.json").read_text())
    assert facts["format"] == 2  # an older mailray reads on, without them


def test_what_was_measured_stands_in_the_bundle_and_its_card(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain")
    found = export(plain, tmp_path / "out", INT8, sample(plain), Quiet(), Tolerance(1, 1, 1))
    check = found.exports[0].check
    assert check is not None
    assert check["mails"] == len(TEXTS)
    assert 0 < check["mean"] <= check["largest"]
    assert check["points"].keys() == {"balanced"}
    assert (
        f"| {check['largest']:.2g} | {check['mean']:.2g} |"
        in (found.path / "README.md").read_text()
    )


def test_scores_beyond_tolerance_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = made(tmp_path / "plain"), made(tmp_path / "other", seed=1)
    write = graph.write_fp32
    monkeypatch.setattr(exporting, "write_fp32", lambda _, file: write(other, file))
    with pytest.raises(ExportError, match=r"onnx fp32 is not written: the largest difference"):
        export(plain, tmp_path / "out", FP32, sample(plain), Quiet())
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "other"}


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ({}, ""),
        ({"largest": 0.9}, "the largest difference of a probability is 0.9, more than 0.1"),
        ({"mean": float("nan")}, "the mean difference of a probability is nan, more than 0.002"),
        ({"changed": 3}, "3 of 200 verdicts change, more than 0.5%"),
        ({"points": {"strict": 2}}, "2 of 200 verdicts change, more than 0.5%"),
    ],
)
def test_each_tolerance_is_kept(check: dict[str, Any], fault: str) -> None:
    fine = {"mails": 200, "largest": 0.01, "mean": 0.001, "changed": 1, "points": {"strict": 1}}
    assert exporting.beyond(fine | check, TOLERANCES["int8"]) == fault


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letters.txt").write_text("mine")
    with pytest.raises(BundleError, match="no model bundle; name another directory with --out"):
        export(made(tmp_path / "plain"), tmp_path / "out", FP32, None, Quiet())
    assert (tmp_path / "out" / "letters.txt").read_text() == "mine"


@pytest.mark.parametrize("change", ["truncated", "of another model"])
def test_a_damaged_or_swapped_model_is_refused(bundle: Bundle, tmp_path: Path, change: str) -> None:
    place = tmp_path / "copy"
    copied = export(bundle, place, FP32, None, Quiet())
    file = place / "model.fp32.onnx"
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        file.write_bytes((place / "model.int8.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is damaged or of another model"):
        Scorer(copied, "fp32", "onnx")
    file.unlink()
    with pytest.raises(BundleError, match=r"no whole model bundle: model\.fp32\.onnx missing"):
        load(place)


def test_pytorchs_model_is_there_whatever_runs(bundle: Bundle) -> None:
    mails = tokens(bundle)
    scorer = Scorer(bundle, "int8", "onnx")
    reader = scorer.reader(mails)
    with torch.inference_mode():
        probabilities = bundle.head.probabilities(scorer.model(*reader)).numpy()
    uncalibrated = Scorer(replace(bundle, temperature=1.0), "fp32").score(mails)
    np.testing.assert_allclose(probabilities, uncalibrated, atol=1e-5)
