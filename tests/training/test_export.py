"""Exports: every kind of model scores alike in ONNX Runtime, or is refused; what `auto` takes."""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from serving.classifier import Classifier
from training import export as exporting
from training import graph
from training.bundle import FILES, Bundle, BundleError, load, save
from training.choice import MARGIN, choose, fastest
from training.config import DataConfig, ModelConfig, TrainConfig
from training.export import TOLERANCES, Tolerance, export
from training.forward import _Sessions
from training.graph import ExportError
from training.model import build
from training.operating import OperatingPoint
from training.scorer import Scorer
from training.stages import Quiet
from training.weights import tokenizer
from training.wide import Grams

TEXTS = ["subject: a\n\nshort", "subject: b\n\n" + "a longer one " * 30, "lunch at noon?", "win"]


def made(
    folder: Path, pooling: str = "mean", head: str = "softmax", labels: int = 2,
    *, multi: bool = False, wide: bool = False, seed: int = 0,
) -> Bundle:  # fmt: skip
    """A random model; its scores differ from mail to mail."""
    names = tuple(f"label-{number}" for number in range(labels))
    data = DataConfig(max_length=32, labels=names, multi_label=multi, wide_length=64 if wide else 0)
    shape: dict[str, Any] = {"name": "tiny", "pooling": pooling, "head": head,
                             "wide_buckets": 1024}  # fmt: skip
    config = TrainConfig(recipe="smoke", data=data, model=ModelConfig.model_validate(shape))
    torch.manual_seed(seed)
    model = build(config.model, labels, 32, multi=multi, wide=wide)
    torch.nn.init.normal_(model.head.weight)
    if model.wide is not None:
        torch.nn.init.normal_(model.wide.weights)
    points = [OperatingPoint("balanced", 0.005, 0.4, 598, 600)] if labels == 2 else []
    return save(
        folder, model, tokenizer("tiny"), config, version="1", metrics={}, temperature=1.5,
        points=points,
    )  # fmt: skip


def tokens(bundle: Bundle) -> list[list[int]]:
    return Scorer(bundle, "fp32").tokens(TEXTS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With both exports, unchecked."""
    folder = tmp_path_factory.mktemp("export")
    one = export(made(folder / "plain", wide=True), folder / "both", "fp32", None, Quiet())
    return export(one, folder / "both", "int8", None, Quiet())


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
    found = export(plain, tmp_path / "out", "fp32", mails, Quiet())
    assert found == load(tmp_path / "out")
    exact = Scorer(plain, "fp32").score(mails)
    scorer = Scorer(found, runtime="onnx")
    assert (scorer.runtime, scorer.precision) == ("onnx", "fp32")
    np.testing.assert_allclose(scorer.score(mails), exact, atol=1e-5)
    alone = np.concatenate([scorer.score([mail]) for mail in mails])
    np.testing.assert_allclose(alone, exact, atol=1e-5)
    assert np.ptp(exact[:, 0]) > 1e-4  # else all of this would say nothing


def test_int8_is_near_and_smaller(bundle: Bundle) -> None:
    mails = tokens(bundle)
    fp32, int8 = bundle.exports
    assert int8.bytes < 0.4 * fp32.bytes
    exact = Scorer(bundle, "fp32").score(mails)
    found = Scorer(bundle, "int8", "onnx").score(mails)
    assert 0 < np.abs(found - exact).max() < 0.1


def test_an_exported_bundle_says_what_it_has(bundle: Bundle) -> None:
    files = {path.name for path in bundle.path.iterdir()}
    assert files == FILES | {"model.fp32.onnx", "model.int8.onnx"}
    assert not [path for path in bundle.path.parent.iterdir() if path.name.startswith(".")]
    assert "not checked" in (bundle.path / "README.md").read_text()
    facts = json.loads((bundle.path / "bundle.json").read_text())
    assert facts["format"] == 2  # an older mailray reads on, without them


def test_what_was_measured_stands_in_the_bundle_and_its_card(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain")
    found = export(plain, tmp_path / "out", "int8", tokens(plain), Quiet(), Tolerance(1, 1, 1))
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
        export(plain, tmp_path / "out", "fp32", tokens(plain), Quiet())
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
        export(made(tmp_path / "plain"), tmp_path / "out", "fp32", None, Quiet())
    assert (tmp_path / "out" / "letters.txt").read_text() == "mine"


@pytest.mark.parametrize("change", ["truncated", "of another model"])
def test_a_damaged_or_swapped_model_is_refused(bundle: Bundle, tmp_path: Path, change: str) -> None:
    place = tmp_path / "copy"
    copied = export(bundle, place, "fp32", None, Quiet())
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


def test_a_runtime_that_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain")
    with pytest.raises(
        BundleError, match=r"no runtime=onnx with precision=auto; it has torch bf16"
    ):
        Scorer(plain, runtime="onnx")
    with pytest.raises(BundleError, match=r"no runtime=auto with precision=int8"):
        Scorer(plain, "int8", "auto")


def test_without_onnxruntime_pytorch_serves_and_onnx_says_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert Scorer(bundle, runtime="auto").runtime == "torch"
    with pytest.raises(BundleError, match=r"pip install 'mailray\[onnx\]'"):
        Scorer(bundle, "int8", "onnx")
    with pytest.raises(ExportError, match=r"onnxruntime is not installed: pip install"):
        export(bundle, bundle.path, "int8", None, Quiet())


class Timed:
    """A forward that takes a given time on a made-up clock."""

    batch_tokens = 64

    def __init__(self, precision: Literal["bf16", "fp32", "int8"], seconds: list[float]) -> None:
        self.runtime: Literal["torch", "onnx"] = "torch" if precision == "bf16" else "onnx"
        self.precision = precision
        self.seconds = itertools.chain(seconds, itertools.repeat(seconds[-1]))
        self.clock = 0.0
        self.tick: Callable[[float], None] = lambda _: None

    def __call__(self, ids: Tensor, mask: Tensor | None, grams: Grams | None) -> Tensor:
        self.tick(next(self.seconds))
        return torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("bf16", "int8", "taken"),
    [
        ([0.02], [0.01], "int8"),
        ([0.01], [0.02], "bf16"),
        ([0.01], [0.01 * (MARGIN + 0.05)], "bf16"),  # not worth being less exact
        ([0.02], [5.0, 0.01], "int8"),  # what is set up at first does not count
        ([0.02], [5.0, 0.9, 0.01], "int8"),  # nor does what else the machine did once
    ],
)
def test_auto_takes_what_is_fastest(bf16: list[float], int8: list[float], taken: str) -> None:
    now = [0.0]

    def tick(seconds: float) -> None:
        now[0] += seconds

    forwards = [Timed("bf16", bf16), Timed("int8", int8)]
    for forward in forwards:
        forward.tick = tick
    choice = fastest(forwards, [(torch.zeros(1, 4), None, None)], lambda: now[0])
    assert choice.forward.precision == taken
    assert choice.measured == {
        "torch bf16": pytest.approx(1000 * bf16[-1]), "onnx int8": pytest.approx(1000 * int8[-1])
    }  # fmt: skip
    assert now[0] < 10


def test_auto_measures_where_there_is_a_choice_and_the_info_says_so(bundle: Bundle) -> None:
    found = Classifier(bundle.path, "fp32", "auto", threads=1).info
    assert found.measured.keys() == {"torch fp32", "onnx fp32"}
    assert (found.runtime, found.precision) in {("torch", "fp32"), ("onnx", "fp32")}
    alone = Classifier(bundle.path, "int8", "onnx").info
    assert (alone.runtime, alone.precision, alone.measured) == ("onnx", "int8", {})


def test_a_measurement_leaves_pytorch_its_threads(bundle: Bundle) -> None:
    before = torch.get_num_threads()
    choose(bundle, Scorer(bundle).reader, "auto", "auto", before + 1)
    assert torch.get_num_threads() == before


def test_pytorchs_model_is_there_whatever_runs(bundle: Bundle) -> None:
    mails = tokens(bundle)
    scorer = Scorer(bundle, "int8", "onnx")
    reader = scorer.reader(mails)
    with torch.inference_mode():
        probabilities = bundle.head.probabilities(scorer.model(*reader)).numpy()
    uncalibrated = Scorer(replace(bundle, temperature=1.0), "fp32").score(mails)
    np.testing.assert_allclose(probabilities, uncalibrated, atol=1e-5)


def test_a_session_with_a_pool_serves_one_caller_and_one_without_serves_all() -> None:
    made: list[int] = []

    def make(threads: int) -> object:
        made.append(threads)
        return object()

    sessions = _Sessions(make)
    with sessions.of(1) as first, sessions.of(1) as second:
        assert first is second
    with sessions.of(2) as first, sessions.of(2) as second:
        assert first is not second
    with sessions.of(2) as third:
        assert third in (first, second)
    assert made == [1, 2, 2]


def test_onnx_runs_on_the_threads_of_whoever_calls(bundle: Bundle) -> None:
    scorer = Scorer(bundle, precision="fp32", runtime="onnx")
    before = torch.get_num_threads()
    mails = scorer.tokens(["Subject: Prize"] * 3)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(scorer.score(mails))
    finally:
        torch.set_num_threads(before)
    forward: Any = scorer.forward
    assert set(forward._sessions._idle) >= {1, 2}
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
