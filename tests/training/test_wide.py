"""The wide part: n-grams counted, weighed, trained beside the encoder, and kept in the bundle."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from serving.classifier import Classifier
from training.bundle import load
from training.config import ModelConfig, OptimizerConfig, resolve
from training.fit import fit
from training.home import Home
from training.model import build
from training.optimizer import make_optimizer
from training.rarity import rarities
from training.run import new_run
from training.scorer import Scorer
from training.stages import Quiet
from training.synthetic import mails
from training.tensors import Reader
from training.wide import Wide, counted, grams

BUCKETS = 2**20


def test_a_mail_has_its_tokens_and_its_pairs_and_none_of_its_neighbours() -> None:
    apart = [grams([mail], BUCKETS) for mail in ([5, 6, 5, 6], [6, 7])]
    both = grams([[5, 6, 5, 6], np.array([6, 7])], BUCKETS)
    assert both.lengths.tolist() == [4, 3]  # 5, 6, 5 6, 6 5; and 6, 7, 6 7
    assert both.buckets.tolist() == [b for one in apart for b in one.buckets.tolist()]
    assert sorted(both.counts[:4].exp().tolist()) == pytest.approx([np.e, *[2 * np.e] * 3])
    first, second = (set(one.buckets.tolist()) for one in apart)
    assert len(first & second) == 1
    assert grams([[5, 6]], BUCKETS).buckets.tolist() != grams([[6, 5]], BUCKETS).buckets.tolist()


def test_n_grams_are_the_same_with_codes_of_32_bits_and_of_64() -> None:
    mails = [np.random.default_rng(0).integers(0, 50, 30) for _ in range(3)]
    flat, lengths = np.concatenate(mails), np.full(3, 30)
    buckets = 2**30  # of three mails the codes fit, of five not
    small = counted(flat, lengths, buckets)
    large = counted(flat, np.array([30, 30, 30, 0, 0]), buckets)
    for ours, theirs in zip(small, large, strict=True):
        assert ours.dtype == theirs.dtype == np.int64
        assert np.array_equal(ours, theirs)


def test_logits_are_those_of_a_normalized_tf_idf_vector() -> None:
    wide = Wide(1024, 2)
    torch.nn.init.normal_(wide.weights)
    wide.rarity.data.uniform_(0, 3)
    of_mails = grams([[1, 2, 3, 1], [9], []], 1024)
    vectors = np.zeros((3, 1024))
    owners = np.repeat(np.arange(3), of_mails.lengths.numpy())
    vectors[owners, of_mails.buckets.numpy()] = of_mails.counts.numpy()
    vectors *= wide.rarity.detach().numpy()
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    expected = vectors @ wide.weights.detach().numpy()
    assert wide(of_mails).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_rarity_counts_training_mails_alone_and_what_one_mail_has_weighs_nothing(
    tmp_path: Path,
) -> None:
    rows = [[4, 5], [4, 4], [5, 9], [9, 9], [7]]
    table = pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))})
    with pa.ipc.new_file(str(tmp_path / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    train = np.array([0, 1, 2, 4])
    rarity = rarities(tmp_path, train, BUCKETS)
    place = {token: int(counted(np.array([token]), np.array([1]), BUCKETS)[1][0]) for token in
             (4, 5, 7, 9)}  # fmt: skip
    common = np.log(5 / 3) + 1
    assert [float(rarity[place[token]]) for token in (4, 5, 7, 9)] == pytest.approx(
        [common, common, 0, 0]
    )
    assert torch.equal(rarities(tmp_path, train, BUCKETS), rarity)  # as it was kept
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_the_encoder_reads_the_ends_and_the_wide_part_everything() -> None:
    mail = list(range(100, 140))
    ids, mask, words = Reader(0, 8, 0.75, BUCKETS)([mail])
    assert ids.tolist() == [[100, 101, 102, 103, 104, 105, 138, 139]]
    assert mask is None
    assert words is not None
    assert words.lengths.tolist() == [40 + 39]


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_the_wide_part_has_its_own_learning_rate_and_no_decay(decay: float) -> None:
    model = build(ModelConfig(name="tiny"), 2, 32, wide=True)
    assert model.wide is not None
    config = OptimizerConfig(lr=1e-4, wide_lr=0.1, layer_decay=decay)
    optimizer, _ = make_optimizer(model, config, 10)
    groups = [
        g for g in optimizer.param_groups if any(p is model.wide.weights for p in g["params"])
    ]
    assert [(len(g["params"]), g["initial_lr"], g["weight_decay"]) for g in groups] == [
        (1, 0.1, 0.0)
    ]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held)
    assert all(p is not model.wide.rarity for p in held)


@pytest.mark.usefixtures("ray_session")
def test_a_wide_model_from_training_to_verdicts(home: Path) -> None:
    here = Home(home)
    config = resolve(
        recipe="smoke",
        overrides=[
            "data.max_length=16", "data.wide_length=64", "model.wide_buckets=4096",
            "optimizer.epochs=4", "optimizer.lr=1e-6",
        ],
    )  # fmt: skip
    result = fit(new_run(here, config, "wide"), here, Quiet())
    bundle = load(result.bundle.path)
    assert (bundle.read_length, bundle.head.wide) == (64, 4096)
    # The encoder hardly moves: it is the wide part that tells the made-up mails apart, of which
    # one in thirty says what the other label says.
    assert bundle.metrics["test"]["roc_auc"] > 0.9
    raws = [raw for _, _, raw in mails(40)]
    truth = [label for _, label, _ in mails(40)]
    verdicts = Classifier(bundle.path).classify_raw(raws)
    assert np.mean([v.label == label for v, label in zip(verdicts, truth, strict=True)]) > 0.9
    # A mail's score depends on no other mail of its batch.
    scorer = Scorer(bundle, "fp32")
    tokens = scorer.tokens([scorer.tokenizer.decode([7] * 20), "invoice meeting", "win a prize"])
    one_by_one = np.concatenate([scorer.score([mail]) for mail in tokens])
    assert scorer.score(tokens) == pytest.approx(one_by_one, abs=1e-6)
