"""What runs: `auto` takes the fastest, and says what is missing; sessions and their threads."""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from serving.classifier import Classifier
from tests.training.exported import made, with_all
from training.bundle import KINDS, Bundle, BundleError
from training.choice import GRAPHS, MARGIN, choose, fastest
from training.export import export
from training.forward import GraphForward, PrecisionName, RuntimeName, _Sessions
from training.graph import ExportError
from training.scorer import Precision, Runtime, Scorer
from training.stages import Quiet
from training.wide import Grams


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_all(tmp_path_factory.mktemp("export"))


def test_a_runtime_that_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain")
    with pytest.raises(
        BundleError, match=r"no runtime=onnx with precision=auto; it has torch bf16"
    ):
        Scorer(plain, runtime="onnx")
    with pytest.raises(BundleError, match=r"no runtime=auto with precision=int8"):
        Scorer(plain, "int8", "auto")


def test_without_its_runtime_an_export_is_left_unused_and_says_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert Scorer(bundle, "int8", "auto").runtime == "openvino"
    assert "onnxruntime is not installed: pip install 'mailray[onnx]'; what" in caplog.text
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert Scorer(bundle, runtime="auto").runtime == "torch"
    for runtime in GRAPHS:
        with pytest.raises(BundleError, match=rf"pip install 'mailray\[{runtime}\]'"):
            Scorer(bundle, "int8", runtime)
    with pytest.raises(BundleError, match=r"openvino is not installed: pip install"):
        Scorer(bundle, "int8", "auto")  # nothing else would do
    with pytest.raises(ExportError, match=r"onnxruntime is not installed: pip install"):
        export(bundle, bundle.path, KINDS[2], None, Quiet())


class Timed:
    """A forward that takes a given time on a made-up clock."""

    batch_tokens = 64

    def __init__(self, precision: PrecisionName, seconds: list[float]) -> None:
        self.runtime: RuntimeName = "torch" if precision == "bf16" else "onnx"
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


def test_a_session_with_a_pool_serves_one_caller_and_one_without_serves_all() -> None:
    made: list[int] = []

    def make(threads: int) -> Any:
        made.append(threads)
        return object()

    sessions = _Sessions(make, shared=True)
    with sessions.of(1) as first, sessions.of(1) as second:
        assert first is second
    with sessions.of(2) as first, sessions.of(2) as second:
        assert first is not second
    with sessions.of(2) as third:
        assert third in (first, second)
    assert made == [1, 2, 2]
    sessions = _Sessions(make, shared=False)
    with sessions.of(1) as first, sessions.of(1) as second:
        assert first is not second
    assert made == [1, 2, 2, 1, 1]


def test_openvino_meets_few_shapes_and_none_beyond_the_models_length(bundle: Bundle) -> None:
    forward = GraphForward(bundle, KINDS[1])
    met: list[tuple[int, ...]] = []

    @contextmanager
    def spy(threads: int) -> Iterator[Any]:
        with sessions.of(threads) as session:

            def spied(inputs: Any) -> Any:
                met.append(inputs["ids"].shape)
                return session(inputs)

            yield spied

    sessions: Any = forward._sessions
    forward._sessions = SimpleNamespace(of=spy)  # type: ignore[assignment]
    forward.wide, forward._longest = None, 30
    ids = torch.arange(2, 32)[None]
    found = [forward(ids[:, :length], None, None) for length in (3, 16, 17, 30)]
    assert met == [(1, 16), (1, 16), (1, 30), (1, 30)]
    bare = GraphForward(bundle, KINDS[1])
    bare.wide, bare._step = None, 1
    for one, length in zip(found, (3, 16, 17, 30), strict=True):
        np.testing.assert_allclose(one, bare(ids[:, :length], None, None), atol=0.05)


@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "fp32"), ("openvino", "int8")])
def test_a_graph_runs_on_the_threads_of_whoever_calls(
    bundle: Bundle, runtime: Runtime, precision: Precision
) -> None:
    scorer = Scorer(bundle, precision, runtime)
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
