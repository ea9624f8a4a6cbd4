"""Bundles: the exact file set, the same scores after a round trip, clear refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.bundle import FILES, Bundle, BundleError, load, save
from training.config import ModelConfig, TrainConfig, resolve
from training.model import build
from training.reference import reference
from training.schema import ConfigError
from training.scorer import Scorer
from training.tensors import pad
from training.weights import tokenizer


@pytest.fixture
def config() -> TrainConfig:
    return resolve(recipe="smoke")


@pytest.fixture
def bundle(tmp_path: Path, config: TrainConfig) -> Bundle:
    model = build(config.model, 2, 64)
    return save(
        tmp_path / "bundle", model, tokenizer("tiny"), config,
        version="1", metrics={"test": {"accuracy": 0.5}},
    )  # fmt: skip


def test_a_bundle_is_exactly_its_files(bundle: Bundle) -> None:
    assert {path.name for path in bundle.path.iterdir()} == FILES
    assert [path.name for path in bundle.path.parent.glob(".*")] == []


def test_a_bundle_scores_as_the_model_did(bundle: Bundle, config: TrainConfig) -> None:
    loaded = load(bundle.path)
    assert loaded == bundle
    scorer = Scorer(loaded, "fp32")
    tokens = scorer.tokens(["subject: a\n\nshort", "subject: b\n\n" + "a longer one " * 30])
    assert max(map(len, tokens)) == 64  # truncated
    ids, mask = pad(tokens)
    with torch.inference_mode():
        expected = torch.softmax(loaded.model()(ids, mask), 1).numpy()
    np.testing.assert_allclose(scorer.score(tokens), expected, atol=1e-6)


def test_a_reference_comes_back_and_one_that_cannot_be_is_damage(
    tmp_path: Path, config: TrainConfig
) -> None:
    spam = np.linspace(0, 1, 50, dtype=np.float32)
    known = reference(("ham", "spam"), np.stack([1 - spam, spam], 1), np.arange(50), ["test"],
                      multi=False)  # fmt: skip
    saved = save(
        tmp_path / "bundle", build(config.model, 2, 64), tokenizer("tiny"), config, version="1",
        metrics={}, reference=known,
    )  # fmt: skip
    assert load(saved.path).reference == known
    file = saved.path / "bundle.json"
    facts = json.loads(file.read_text())
    assert len(json.dumps(facts["reference"])) < 600
    facts["reference"]["score"]["counts"][0] += 1
    file.write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"damaged: .*not of the same mails"):
        load(saved.path)
    del facts["reference"]
    file.write_text(json.dumps(facts))
    assert load(saved.path).reference is None


def test_epochs_curves_and_provenance_come_back(tmp_path: Path, config: TrainConfig) -> None:
    rows = [{"epoch": 1, "train_loss": None, "val_loss": 0.5, "best": True}]
    saved = save(
        tmp_path / "bundle", build(config.model, 2, 64), tokenizer("tiny"), config, version="1",
        metrics={}, epochs=rows, curves={"spam": {"yes": 1}}, provenance={"commit": "abc"},
    )  # fmt: skip
    loaded = load(saved.path)
    assert loaded == saved
    assert (loaded.epochs, loaded.provenance) == (tuple(rows), {"commit": "abc"})
    assert loaded.curves == {"spam": {"yes": 1}}


def test_an_older_bundle_has_none_of_them(bundle: Bundle) -> None:
    facts = json.loads((bundle.path / "bundle.json").read_text())
    del facts["epochs"], facts["curves"], facts["provenance"]
    (bundle.path / "bundle.json").write_text(json.dumps(facts))
    old = load(bundle.path)
    assert (old.epochs, old.curves, old.provenance) == ((), {}, {})


def test_saving_again_replaces_the_whole(bundle: Bundle, config: TrainConfig) -> None:
    (bundle.path / "stray").write_text("x")
    model = build(config.model, 2, 64)
    save(bundle.path, model, tokenizer("tiny"), config, version="2", metrics={})
    assert load(bundle.path).version == "2"
    assert {path.name for path in bundle.path.iterdir()} == FILES


def test_missing_files_are_named(bundle: Bundle) -> None:
    (bundle.path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors missing"):
        load(bundle.path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl", "modeling_custom.py"])
def test_a_file_that_no_bundle_has_is_refused_by_name(bundle: Bundle, name: str) -> None:
    (bundle.path / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"no bundle has: {name}"):
        load(bundle.path)
    (bundle.path / name).unlink()
    load(bundle.path)


def test_truncated_weights_are_refused(bundle: Bundle) -> None:
    weights = bundle.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleError, match="damaged"):
        load(bundle.path).model()


def test_another_format_is_refused_by_its_number(bundle: Bundle) -> None:
    facts = json.loads((bundle.path / "bundle.json").read_text())
    (bundle.path / "bundle.json").write_text(json.dumps(facts | {"format": 1}))
    with pytest.raises(BundleError, match="has bundle format 1, this mailray reads 2"):
        load(bundle.path)


def test_another_mail_text_is_refused(bundle: Bundle) -> None:
    facts = json.loads((bundle.path / "bundle.json").read_text())
    (bundle.path / "bundle.json").write_text(json.dumps(facts | {"mail_text_version": 99}))
    with pytest.raises(BundleError, match="trained on mail text 99"):
        load(bundle.path)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_padding_changes_no_score(pooling: str, head: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"name": "tiny", "pooling": pooling, "head": head})
    model = build(config, 2, 64).eval()
    ids = torch.arange(10, 20).unsqueeze(0)
    padded = torch.cat([ids, torch.zeros(1, 7, dtype=torch.int64)], 1)
    mask = torch.tensor([[1] * 10 + [0] * 7])
    with torch.inference_mode():
        alone = model.probabilities(model(ids, None))
        beside = model.probabilities(model(padded, mask))
    assert alone.shape == (1, 2)
    torch.testing.assert_close(alone, beside, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.sum(1), torch.ones(1))


def test_freezing_leaves_the_upper_layers_trainable() -> None:
    model = build(ModelConfig(name="tiny", freeze=2), 2, 64)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("encoder.encoder.layer.1") for name in trained)
    assert not any("embeddings" in name or "layer.0" in name for name in trained)
    with pytest.raises(ConfigError, match="at most 2"):
        build(ModelConfig(name="tiny", freeze=3), 2, 64)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    ids = torch.arange(40).reshape(4, 10)
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        model = build(ModelConfig(name="tiny", gradient_checkpointing=again), 2, 64).train()
        torch.manual_seed(1)  # of dropout
        model(ids, None).sum().backward()
        layers: Any = model.encoder
        assert layers.is_activation_checkpointing == again
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_attention_dropout_is_off_on_a_cpu_unless_asked_for() -> None:
    plain: Any = build(ModelConfig(name="tiny"), 2, 64).encoder
    asked: Any = build(ModelConfig(name="tiny", attention_dropout=0.1), 2, 64).encoder
    on_gpu = torch.cuda.is_available()
    assert plain.config.attention_probs_dropout_prob == (0.1 if on_gpu else 0.0)
    assert asked.config.attention_probs_dropout_prob == 0.1


def test_a_model_directory_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="has no weights"):
        build(ModelConfig(name=str(tmp_path)), 2, 64)


def test_an_unreachable_model_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="neither a directory here nor given by the hub"):
        build(ModelConfig(name="no-such-model-anywhere"), 2, 64)
