"""A served model on a GPU: the verdicts and the reasons of a CPU, to rounding."""

import asyncio

import pytest
import torch

from serving.batcher import Batcher
from serving.classifier import Classifier
from serving.explanation import Explainer
from tests.serving.test_classifier import MAILS
from training.bundle import Bundle
from training.mail import mail_text

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
TEXTS = [mail_text(raw) for raw in MAILS]


@pytest.fixture
def on_a_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The probability of spam of each mail."""
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        classifier = Classifier(bundle.path, "fp32", "torch")
        return [verdict.scores["spam"] for verdict in classifier.classify_raw(MAILS)]


def test_it_scores_as_a_cpu_does(bundle: Bundle, on_a_cpu: list[float]) -> None:
    for precision, error in (("fp32", 1e-4), ("auto", 2e-2)):
        classifier = Classifier(bundle.path, precision)  # type: ignore[arg-type]
        assert classifier.scorer.model.head.weight.device.type == "cuda"
        found = [verdict.scores["spam"] for verdict in classifier.classify_raw(MAILS)]
        assert found == pytest.approx(on_a_cpu, abs=error)
    assert classifier.info.precision == "bf16"


def test_the_batcher_answers_mails_that_come_together(
    bundle: Bundle, on_a_cpu: list[float]
) -> None:
    async def answers() -> list[float]:
        batcher = Batcher(Classifier(bundle.path, "fp32"), threads=2, max_queued=1_000)
        scored = await asyncio.gather(*(batcher.classify(text) for text in TEXTS * 50))
        batcher.close()
        return [one.verdict.scores["spam"] for one in scored]

    assert asyncio.run(answers()) == pytest.approx(on_a_cpu * 50, abs=1e-4)


def test_reasons_add_up(bundle: Bundle, on_a_cpu: list[float]) -> None:
    explainer = Explainer(bundle)
    for text, probability in zip(TEXTS, on_a_cpu, strict=True):
        found = explainer.explain(text, label="spam", seconds=60)
        assert found.complete
        assert found.probability == pytest.approx(probability, abs=1e-4)
        weights = sum(span.weight for span in found.spans) + found.elsewhere
        assert weights + found.gap == pytest.approx(found.score - found.baseline, abs=1e-6)
