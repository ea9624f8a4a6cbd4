"""Evaluation: the same counts on any number of workers, and clear words about bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray.data
import torch

from training import synthetic
from training.bundle import Bundle, BundleError, save
from training.config import resolve
from training.curve import Curve
from training.evaluation import evaluate, gpu_share, score
from training.home import Home
from training.mails import load
from training.model import MailModel, build
from training.progress import Message
from training.run import Run
from training.sources import SourceError
from training.stages import Quiet
from training.trainer import train_run
from training.weights import tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


class Heard(Quiet):
    """Keeps the lines that stay."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def here(home: Path) -> Home:
    return Home(home)


def _bundle(
    place: Path, *overrides: str, change: Callable[[MailModel], object] = lambda model: None
) -> Bundle:
    """A model of the smoke recipe that has learned nothing."""
    config = resolve(recipe="smoke", overrides=list(overrides))
    torch.manual_seed(0)
    model = build(config.model, 2, config.data.max_length)
    torch.nn.init.normal_(model.head.weight)
    with torch.no_grad():
        change(model)
    return save(place / "bundle", model, tokenizer("tiny"), config, version="1", metrics={})


def _table(file: Path, mails: int, **columns: Callable[[int, str], str]) -> str:
    """Made-up mails as a table, with columns from a mail's number and label."""
    lines = []
    for number, (id_, label, raw) in enumerate(synthetic.mails(mails)):
        mail = {"id": id_, "label": label, "raw": raw.decode()}
        mail |= {name: column(number, label) for name, column in columns.items()}
        lines.append(json.dumps(mail))
    file.write_text("\n".join(lines))
    return str(file)


def test_a_thousand_and_one_mails_are_counted_once_on_any_number_of_workers(
    here: Home, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path)
    alone, *others = [
        evaluate(bundle, here, Quiet(), source="synthetic:1001", workers=workers)
        for workers in (1, 2, 3)
    ]
    assert alone.ids == [f"synthetic/{number:06d}" for number in range(1001)]
    assert len(alone.positive.scores) > 300, "scores that tell mails apart"
    report = alone.report()
    assert report["mails"] == sum(map(sum, report["confusion"])) == 1001
    for scored in others:
        assert scored.ids == alone.ids
        for name in ("scores", "yes", "no"):
            np.testing.assert_array_equal(
                getattr(scored.positive, name), getattr(alone.positive, name)
            )
        assert scored.report() == report


@pytest.mark.slow
def test_validation_in_training_counts_each_mail_once_on_any_number_of_workers(
    here: Home, tmp_path: Path
) -> None:
    """With a learning rate that moves nothing, so that every run validates the same model."""
    split = ["train"] * 60 + ["validation"] * 101 + ["test"] * 20
    source = _table(tmp_path / "mails.jsonl", 181, split=lambda number, _: split[number])

    def validated(workers: int) -> Message:
        config = resolve(
            recipe="smoke",
            overrides=[
                f"data.source={source}", f"scaling.workers={workers}", "optimizer.lr=1e-12",
                "optimizer.epochs=1", "scaling.precision=fp32",
            ],
        )  # fmt: skip
        mails = load(config.data, tokenizer(config.model.name), here, Quiet())
        assert len(mails.on("validation")) == 101
        heard: list[Message] = []
        train_run(Run(here.runs / str(workers), config), mails, heard.append)
        [epoch] = [message for message in heard if message["kind"] == "epoch"]
        return epoch

    alone, *others = [validated(workers) for workers in (1, 2, 3)]
    right = alone["val_accuracy"] * 101
    assert 0 < right < 101
    assert right == pytest.approx(round(right), abs=1e-9)
    for epoch in others:
        assert epoch["val_accuracy"] == alone["val_accuracy"]
        assert epoch["val_loss"] == pytest.approx(alone["val_loss"], abs=1e-6)


@pytest.mark.slow
def test_more_workers_than_validation_mails_end_their_epoch(here: Home, tmp_path: Path) -> None:
    split = ["validation"] * 3 + ["train"] * 40 + ["test"] * 20
    source = _table(tmp_path / "mails.jsonl", 63, split=lambda number, _: split[number])
    config = resolve(
        recipe="smoke",
        overrides=[f"data.source={source}", "scaling.workers=4", "optimizer.epochs=1"],
    )
    mails = load(config.data, tokenizer(config.model.name), here, Quiet())
    heard: list[Message] = []
    train_run(Run(here.runs / "few", config), mails, heard.append)
    [epoch] = [message for message in heard if message["kind"] == "epoch"]
    assert epoch["val_accuracy"] * 3 == pytest.approx(round(epoch["val_accuracy"] * 3))


def test_a_model_that_gives_no_number_is_refused_with_the_mails(here: Home, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, change=lambda model: model.head.weight.fill_(float("nan")))
    with pytest.raises(
        BundleError, match=r"bundle gives 9 of 9 mails no probability, but NaN \(synthetic/000000, "
    ):
        evaluate(bundle, here, Quiet(), source="synthetic:9", workers=1)


def test_equal_scores_are_chance_and_one_class_alone_has_no_curve(
    here: Home, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path, change=lambda model: model.head.weight.zero_())
    equal = evaluate(bundle, here, Quiet(), source="synthetic:31", workers=1)
    report = equal.report()
    assert (report["roc_auc"], report["recall_at_fpr_0.01"], report["recall"]) == (0.5, 0.0, 0.0)
    assert report["intervals"]["roc_auc"] == (0.5, 0.5)
    assert report["loss"] == pytest.approx(np.log(2))
    ham = np.flatnonzero(equal.truth == 0)
    for rows, curve in ((ham, (len(ham), 0)), (np.flatnonzero(equal.truth == 1), (0, 11))):
        alone = type(equal)(
            equal.labels, [equal.ids[row] for row in rows], equal.truth[rows], equal.scores[rows]
        )
        values = alone.report()
        assert (alone.positive.no.sum(), alone.positive.yes.sum()) == curve
        assert np.isnan(
            [values["roc_auc"], values["lam_percent"], *values["intervals"]["f1"]]
        ).all()
        assert values["accuracy"] == (1.0 if curve[0] else 0.0)


def test_labels_that_the_model_does_not_know_are_told(here: Home, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    odd = _table(tmp_path / "some.jsonl", 10, label=lambda n, label: "bulk" if n < 3 else label)
    heard = Heard()
    scored = evaluate(bundle, here, heard, source=odd, workers=1)
    assert len(scored.ids) == 7
    assert any(note.startswith("unreadable mails: 3 (") for note in heard.notes)
    all_odd = _table(tmp_path / "all.jsonl", 4, label=lambda *_: "bulk")
    with pytest.raises(
        SourceError, match=r"no readable mail .*; the first, synthetic/000000: label 'bulk' is not"
    ):
        evaluate(bundle, here, Quiet(), source=all_odd)


def test_a_split_without_a_mail_is_refused(here: Home, tmp_path: Path) -> None:
    source = _table(tmp_path / "mails.jsonl", 8, split=lambda *_: "train")
    bundle = _bundle(tmp_path, f"data.source={source}")
    with pytest.raises(SourceError, match="has no readable mail in split test"):
        evaluate(bundle, here, Quiet())


def test_scores_of_shards_add_up_to_those_of_all(here: Home, tmp_path: Path) -> None:
    scored = evaluate(_bundle(tmp_path), here, Quiet(), source="synthetic:101", workers=2)
    parts = [Curve.of(part.truth == 1, part.scores[:, 1]) for part in scored.cut(40)]
    assert (parts[0] + parts[1]).auc == scored.positive.auc
    assert (parts[0] + parts[1]).mails == 101


@pytest.mark.parametrize(
    ("gpus", "models", "share"), [(0, 2, 0), (1, 1, 1), (1, 2, 1 / 2), (2, 3, 1 / 2), (4, 2, 1)]
)
def test_models_share_the_gpus_that_there_are(
    gpus: int, models: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": float(gpus)})
    assert gpu_share(models) == share


def test_ray_takes_the_job_for_a_gpu(
    here: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(tmp_path, "data.source=synthetic:64")
    mails = load(resolve(recipe="smoke").data, tokenizer("tiny"), here, Quiet())

    def run(job: ray.data.Dataset, **options: object) -> None:
        raise InterruptedError  # there is no GPU here to wait for

    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr("ray.data.Dataset.iter_batches", run)
    with pytest.raises(InterruptedError):
        score(bundle.path, mails.cache, np.arange(9), bundle.label_set, "fp32", 2)
