"""Training on a GPU: as on a CPU, to rounding; and the same bits whenever it is done again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.checkpoint import MODEL
from training.config import resolve
from training.home import Home
from training.mails import load
from training.model import build
from training.run import Run
from training.scorer import bf16_pays
from training.stages import Quiet
from training.trainer import train_run
from training.weights import tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.usefixtures("ray_session"),
]
SETTINGS = (
    "optimizer.epochs=2", "data.wide_length=128", "model.wide_buckets=4096", "scaling.gpu=true",
    "scaling.workers=1",
)  # fmt: skip
Train = Callable[..., tuple[list[float], Path]]


@pytest.fixture
def train(home: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Training in this process: the validation losses, and the best checkpoint."""
    monkeypatch.setattr(
        "training.trainer._room", lambda config: None
    )  # Ray's GPUs are not asked for

    def train(name: str, *settings: str, until: int | None = None) -> tuple[list[float], Path]:
        config = resolve(recipe="smoke", overrides=[*SETTINGS, *settings])
        mails = load(config.data, tokenizer(config.model.name), Home(home), Quiet())
        losses: list[float] = []
        run = Run(home / "runs" / name, config)
        best = train_run(
            run, mails, report=lambda facts: losses.append(facts["val_loss"]), until=until
        )
        return losses, best

    return train


def test_it_learns_what_a_cpu_learns(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = ("scaling.precision=fp32", "model.dropout=0", "model.attention_dropout=0")
    here, _ = train("gpu", *alike)
    assert torch.cuda.max_memory_allocated() > 0
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        there, _ = train("cpu", *alike)
    assert here == pytest.approx(there, rel=1e-3)
    assert here[0] != here[1]


def test_a_run_that_stopped_ends_with_the_weights_of_one_that_did_not(train: Train) -> None:
    _, whole = train("whole")
    train("stopped", until=1)
    _, resumed = train("stopped")
    ours, theirs = load_file(whole / MODEL), load_file(resumed / MODEL)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_precision_is_bf16_by_itself_and_logits_are_float32() -> None:
    assert bf16_pays()
    config = resolve(recipe="smoke").model
    model = build(config, 2, 64).cuda().eval()
    ids = torch.ones(2, 8, dtype=torch.int64, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        logits = model(ids, None)
        assert model.encoder(input_ids=ids).last_hidden_state.dtype in (
            torch.bfloat16, torch.float32,
        )  # fmt: skip
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, model(ids, None), rtol=0.05, atol=0.02)
