"""Attribution on tiny random models: it is complete, and finds the word that decides."""

import itertools
import time

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from serving.attribution import (
    TOLERANCE,
    Attribution,
    Attributor,
    NotExplainableError,
    OutOfTimeError,
    direction,
    wide_shares,
)
from training.model import HeadShape, MailModel
from training.wide import Wide, grams

MASK = 3
SIZE = 60


def made(shape: HeadShape) -> MailModel:
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=400,
        initializer_range=0.3,
    )
    model = MailModel(BertModel(settings), shape).eval()
    torch.nn.init.normal_(model.head.weight, std=0.8)
    if model.wide is not None:
        torch.nn.init.normal_(model.wide.weights)
        with torch.no_grad():
            model.wide.rarity.uniform_(0, 3)
    return model


def attributed(
    model: MailModel, ids: list[int], towards: torch.Tensor, read: np.ndarray | None = None
) -> Attribution:
    baseline = [ids[0], *[MASK] * (len(ids) - 2), ids[-1]]
    places = np.arange(len(ids)) if read is None else read
    return Attributor(model)(ids, baseline, towards, places, time.monotonic() + 600)


def a_mail(tokens: int) -> list[int]:
    return [1, *np.random.default_rng(1).integers(5, SIZE, tokens - 2).tolist(), 2]


@pytest.mark.parametrize("wide", [0, 64])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize(
    ("kind", "labels", "multi"),
    [("softmax", 2, False), ("softmax", 4, False), ("sigmoid", 2, False), ("sigmoid", 3, True)],
)
def test_the_weights_add_up_to_what_the_model_says(
    pooling: str, kind: str, labels: int, multi: bool, wide: int
) -> None:
    shape = HeadShape(labels, pooling, kind, 0.0, multi, wide)  # type: ignore[arg-type]
    model, ids = made(shape), a_mail(12)
    logits = model(torch.tensor([ids]), None, grams([ids], wide) if wide else None)[0]
    empty = [ids[0], *[MASK] * 10, ids[-1]]
    # The wide part of a mail without n-grams is 0.
    nothing = grams([[]], wide) if wide else None
    base = model(torch.tensor([empty]), None, nothing)[0]
    towards = direction(shape, 1, 2.0)
    found = attributed(model, ids, towards)
    assert found.complete
    assert found.score == pytest.approx((logits @ towards).item(), abs=1e-4)
    assert found.baseline == pytest.approx((base @ towards).item(), abs=1e-4)
    moved = found.score - found.baseline
    assert found.weights.sum() + found.gap == pytest.approx(moved, abs=1e-6)
    assert abs(found.gap) <= TOLERANCE * max(abs(moved), 1)
    assert abs(found.weights).max() > 0.05  # a model that says nothing would be complete as well


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_of_two_labels_the_score_is_the_calibrated_log_odds(kind: str) -> None:
    shape = HeadShape(2, "mean", kind, 0.0)  # type: ignore[arg-type]
    model = made(shape)
    logits = model(torch.tensor([a_mail(9)]), None)
    [row] = model.probabilities(logits)
    for label, heat in itertools.product((0, 1), (1.0, 2.5)):
        score = (logits[0] @ direction(shape, label, heat)).item()
        assert score == pytest.approx((torch.logit(row[label]) / heat).item(), abs=1e-4)


def test_a_long_mail_that_the_encoder_reads_in_part_is_complete() -> None:
    shape = HeadShape(2, "mean", "softmax", 0.0, False, 64)
    ids = a_mail(300)
    read = np.concatenate([np.arange(190), np.arange(290, 300)])  # blocks of attention, too
    found = attributed(made(shape), ids, direction(shape, 1, 1.0), read)
    alone = wide_shares(made(shape).wide, ids, direction(shape, 1, 1.0))  # type: ignore[arg-type]
    assert found.complete
    assert found.weights[190:290] == pytest.approx(alone[190:290])


def test_the_word_that_decides_has_the_weight() -> None:
    """All word embeddings are alike but one's, and so is everything that the encoder makes."""
    shape = HeadShape(2, "mean", "softmax", 0.0)
    model = made(shape)
    with torch.no_grad():
        words = model.encoder.get_input_embeddings().weight  # type: ignore[operator]
        words[:] = words[MASK]
        words[17] += 2 * torch.randn(16)
    ids = [1, 9, 10, 17, 11, 12, 2]
    found = attributed(model, ids, direction(shape, 1, 1.0))
    others = np.delete(found.weights, 3)
    assert abs(found.weights[3]) > 0.1
    assert np.abs(others).max() < 1e-6


def test_a_pair_of_the_wide_part_counts_for_both_its_words_and_in_all_its_places() -> None:
    wide = Wide(1 << 20, 1)
    pair = grams([[7, 8]], wide.buckets)
    [bucket] = set(pair.buckets.tolist()) - set(grams([[7], [8]], wide.buckets).buckets.tolist())
    with torch.no_grad():
        wide.weights[bucket] = 6.0
    ids = [1, 7, 8, 5, 7, 8, 2]
    shares = wide_shares(wide, ids, torch.ones(1))
    assert shares[[0, 3, 6]] == pytest.approx(0)
    assert shares[[1, 2, 4, 5]] == pytest.approx(shares[1])
    assert shares.sum() == pytest.approx(wide(grams([ids], wide.buckets)).item(), abs=1e-5)


@pytest.mark.parametrize("ids", [[], [1, 2], [5, 5, 5, 5]])
def test_wide_shares_add_up_however_short_a_mail_is(ids: list[int]) -> None:
    model = made(HeadShape(3, "mean", "softmax", 0.0, False, 8))  # 8 buckets: they collide
    assert model.wide is not None
    towards = torch.tensor([1.0, -0.5, -0.5])
    logits = model.wide(grams([ids], 8))[0]
    shares = wide_shares(model.wide, ids, towards)
    assert shares.sum() == pytest.approx((logits @ towards).item(), abs=1e-5)


def test_steps_are_doubled_until_the_gap_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = HeadShape(2, "cls", "softmax", 0.0)
    model, ids, towards = made(shape), a_mail(12), direction(shape, 1, 1.0)
    monkeypatch.setattr("serving.attribution.FIRST_STEPS", 1)
    found = attributed(model, ids, towards)
    assert found.complete
    assert found.steps > 1
    monkeypatch.setattr("serving.attribution.MOST_STEPS", found.steps // 2)
    fewer = attributed(model, ids, towards)
    assert not fewer.complete
    assert abs(fewer.gap) > abs(found.gap)


def test_no_time_at_all_is_an_error_and_little_time_an_answer_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = HeadShape(2, "cls", "softmax", 0.0)
    attributor, ids = Attributor(made(shape)), a_mail(12)
    arguments = (ids, [1, *[MASK] * 10, 2], direction(shape, 1, 1.0), np.arange(12))
    with pytest.raises(OutOfTimeError):
        attributor(*arguments, time.monotonic() - 1)
    monkeypatch.setattr("serving.attribution.FIRST_STEPS", 1)
    clock = itertools.count()  # a second at each look
    monkeypatch.setattr("serving.attribution.time.monotonic", lambda: float(next(clock)))
    found = attributor(*arguments, 12.0)
    assert not found.complete
    assert found.steps < 8


def test_an_encoder_without_word_embeddings_is_refused() -> None:
    model = made(HeadShape(2, "mean", "softmax", 0.0))
    model.encoder = torch.nn.Identity()
    with pytest.raises(NotExplainableError, match="Identity"):
        Attributor(model)
