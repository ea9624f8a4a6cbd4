"""A whole run on made-up mails: trained by two workers, tested, registered, resumed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from training import checkpoint, registry, synthetic
from training.bundle import load as load_bundle
from training.config import TrainConfig, resolve
from training.evaluation import evaluate
from training.fit import fit
from training.home import Home
from training.mails import Mails
from training.mails import load as load_mails
from training.progress import Message
from training.run import Run, RunNameError, new_run, unfinished_run
from training.schema import ConfigError
from training.sources import SourceError
from training.splits import SPLITS
from training.stages import Quiet
from training.tracking import client
from training.trainer import RunError, _innermost, _trainer, train_run
from training.weights import tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def here(home: Path) -> Home:
    return Home(home)


def _mails(config: TrainConfig, here: Home) -> Mails:
    return load_mails(config.data, tokenizer(config.model.name), here, Quiet())


def test_a_run_gives_a_registered_bundle_that_evaluates_the_same(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.epochs=3"])
    run = new_run(here, config, "first")
    result = fit(run, here, Quiet())
    metrics = result.bundle.metrics["test"]
    assert metrics["mails"] == 26
    assert metrics["accuracy"] > 0.8
    assert (result.version, result.champion) == ("1", True)
    assert Run.read(run.path).state == "done"
    assert 0.05 <= result.bundle.temperature <= 20
    assert [(p["name"], p["threshold"], p["needed"]) for p in metrics["points"]] == [
        ("strict", None, 2995), ("balanced", None, 598), ("lenient", None, 299),
    ]  # fmt: skip

    compared = result.bundle.metrics["baselines"]
    assert list(compared) == ["byte 4-grams", "TF-IDF words"]
    assert all(values["mails"] == 26 and values["accuracy"] > 0.8 for values in compared.values())

    place = registry.resolve(here, "mailray-smoke@champion")
    champion = load_bundle(place)
    assert champion.version == "1"
    assert [row["epoch"] for row in champion.epochs] == [1, 2, 3]
    assert (champion.epochs, champion.provenance) == (
        result.bundle.epochs, result.bundle.provenance,
    )  # fmt: skip
    assert champion.provenance["data.test"] == "26"
    assert champion.reference is not None
    assert champion.reference.mails == 2 * 26
    assert champion.reference.splits == ("validation", "test")
    assert champion.curves["spam"]["yes"] + champion.curves["spam"]["no"] == 26
    assert champion.provenance["weights"] == result.weights
    assert (champion.temperature, champion.points) == (
        result.bundle.temperature, result.bundle.points,
    )  # fmt: skip
    scored = evaluate(champion, here, Quiet(), split="test", workers=1)
    again = scored.report()
    assert again["confusion"] == metrics["confusion"]
    assert again["loss"] == pytest.approx(metrics["loss"], abs=1e-2)

    tracked = client(here).get_run(Run.read(run.path).tracked)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["optimizer.epochs"] == "3"
    assert tracked.data.metrics["test_accuracy"] == metrics["accuracy"]
    assert tracked.data.metrics["system/system_memory_usage_percentage"] > 0
    assert tracked.data.tags["data.fingerprint"] == champion.provenance["data.fingerprint"]
    stored = {file.path for file in client(here).list_artifacts(tracked.info.run_id)}
    assert stored == {"config.yaml", "bundle"}
    assert list((run.path / "tensorboard").iterdir())
    with pytest.raises(RunNameError, match="run first is finished"):
        unfinished_run(here, config, "first")
    with pytest.raises(RunNameError, match="run first exists"):
        new_run(here, config, "first")


def test_a_run_goes_on_from_its_last_checkpoint(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.epochs=4", "scaling.workers=1"])
    mails = _mails(config, here)
    run = Run(here.runs / "halved", config)
    half = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"epochs": 2})}
    )
    train_run(replace(run, config=half), mails, None)
    heard: list[Message] = []
    train_run(run, mails, heard.append)
    epochs = [message["epoch"] for message in heard if message["kind"] == "epoch"]
    assert epochs == [3, 4]
    rows = checkpoint.epochs(run.path / "checkpoints")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4], "those of the first command too"
    assert min(rows, key=lambda row: row["val_loss"])["best"]
    assert sum(row["best"] for row in rows) == 1
    assert all(row["train_loss"] > 0 and row["seconds"] > 0 for row in rows)


def test_the_latest_unfinished_run_of_the_same_config_is_found(here: Home) -> None:
    config = resolve(recipe="smoke")
    with pytest.raises(RunNameError, match="no unfinished run"):
        unfinished_run(here, config, None)
    Run(here.runs / "a", config, "failed").write()
    Run(here.runs / "b", resolve(recipe="smoke", overrides=["seed=1"])).write()
    assert unfinished_run(here, config, None).path.name == "a"
    with pytest.raises(RunNameError, match="another config"):
        unfinished_run(here, config, "b")
    with pytest.raises(RunNameError, match="no run c"):
        unfinished_run(here, config, "c")


def test_the_classic_recipe_trains_from_a_model_directory(here: Home, tmp_path: Path) -> None:
    """As it stands but for the size: one layer with a sigmoid on the pooled output of a BERT."""
    place = tmp_path / "bert"
    settings = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(settings).save_pretrained(place)
    tokenizer("tiny").save(str(place / "tokenizer.json"))
    config = resolve(
        recipe="spam-bert",
        overrides=[f"model.name={place}", "data.source=synthetic:80", "optimizer.epochs=1"],
    )
    result = fit(new_run(here, config, "bert"), here, Quiet())
    assert result.bundle.head.kind == "sigmoid"
    assert "head.weight" in load_file(result.bundle.path / "model.safetensors")
    assert result.bundle.model().head.out_features == 1


def test_workers_on_every_cpu_are_refused(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["scaling.workers=7"])
    mails = _mails(config, here)
    with pytest.raises(ConfigError, match="need 7 CPUs, the cluster has 6"):
        train_run(Run(here.runs / "x", config), mails, None)


@pytest.mark.parametrize("gpu", [True, False])
def test_workers_without_a_gpu_of_their_own_see_none(
    gpu: bool, here: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    job: Any = SimpleNamespace(
        config=resolve(recipe="smoke", overrides=[f"scaling.gpu={str(gpu).lower()}"])
    )
    trainer: Any = _trainer(job, Run(here.runs / "x", job.config), [])
    hidden = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
    assert trainer.run_config.worker_runtime_env == ({} if gpu else hidden)


def test_an_operation_that_varies_is_told_with_what_to_set() -> None:
    said = _innermost(RuntimeError("put has no deterministic implementation, but you set 'x'. You"))
    assert said.endswith("put has no deterministic implementation; set scaling.deterministic=false")


def test_a_config_that_no_model_fits_stops_the_run_at_the_first_try(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["model.freeze=9"])
    mails = _mails(config, here)
    said: list[Message] = []
    with pytest.raises(RunError, match=r"training stopped: model\.freeze: at most 2"):
        train_run(Run(here.runs / "x", config), mails, said.append)
    assert not said


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_mails(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.lr=1e38"])
    mails = _mails(config, here)
    run = Run(here.runs / "nan", config)
    run.path.mkdir(parents=True)
    with pytest.raises(RunError, match=r"not finite in epoch 1, step \d+, on \d+ mails?, listed"):
        train_run(run, mails, None)
    ids = json.loads((run.path / "not_finite.json").read_text())["ids"]
    assert ids
    assert set(ids) <= set(mails.cache.table()["id"].to_pylist())


def test_checkpoints_that_cannot_be_written_stop_the_run_and_say_where(here: Home) -> None:
    config = resolve(
        recipe="smoke", overrides=["scaling.checkpoint_steps=5", "scaling.max_failures=0"]
    )
    mails = _mails(config, here)
    run = Run(here.runs / "full", config)
    run.path.mkdir(parents=True)
    (run.path / "checkpoints").write_text("in the way")
    with pytest.raises(RunError, match=r"checkpoint e000-s000005 cannot be written to .*/full"):
        train_run(run, mails, None)


@pytest.mark.slow
def test_a_run_whose_mails_have_changed_is_not_gone_on_with(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.epochs=1", "scaling.workers=1"])
    run = Run(here.runs / "moved", config)
    train_run(run, _mails(config, here), None)
    more = replace(run, config=resolve(recipe="smoke", overrides=["data.source=synthetic:300"]))
    with pytest.raises(RunError, match="the mails or their splits have changed since moved"):
        train_run(more, _mails(more.config, here), None)


@pytest.mark.slow
def test_micro_batches_and_token_budgets_train_as_whole_batches_do(here: Home) -> None:
    plain = ["model.dropout=0", "scaling.precision=fp32", "scaling.workers=1"]

    def losses(*overrides: str) -> list[float]:
        config = resolve(recipe="smoke", overrides=[*plain, *overrides])
        heard: list[Message] = []
        name = "-".join(overrides).replace(".", "_") or "whole"
        train_run(Run(here.runs / name, config), _mails(config, here), heard.append)
        return [message["val_loss"] for message in heard if message["kind"] == "epoch"]

    whole = losses()
    assert losses("batching.micro_tokens=100") == pytest.approx(whole, abs=1e-3)
    assert losses("batching.tokens=900")[-1] < 0.5


@pytest.mark.slow
def test_a_profile_is_written_on_request(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.epochs=2", "tracking.profile=true"])
    run = Run(here.runs / "profiled", config)
    train_run(run, _mails(config, here), None)
    (trace,) = (run.path / "profile").glob("*.json*")
    assert "aten::" in trace.read_text()


def test_a_source_too_small_to_split_is_refused(here: Home) -> None:
    config = resolve(recipe="smoke", overrides=["data.source=synthetic:4"])
    with pytest.raises(SourceError, match="to split validation"):
        _mails(config, here)


def test_unreadable_mails_are_counted_and_left_out(here: Home, tmp_path: Path) -> None:
    for label in ("ham", "spam"):
        (tmp_path / "mail" / label).mkdir(parents=True)
    for id_, label, raw in synthetic.mails(60):
        (tmp_path / "mail" / label / f"{Path(id_).name}.eml").write_bytes(raw)
    (tmp_path / "mail" / "spam" / "empty.eml").write_bytes(b"")
    (tmp_path / "mail" / "spam" / "photo.eml").write_bytes(b"\xff\xd8\xff\xe0JFIF")
    config: TrainConfig = resolve(
        recipe="smoke", overrides=[f"data.source={tmp_path / 'mail'}", "data.test=0.2"]
    )
    mails = _mails(config, here)
    assert (mails.cache.mails, mails.cache.unreadable) == (62, 2)
    used = sum(len(mails.on(split)) for split in SPLITS)
    assert used == 60
    listed = pq.read_table(mails.cache.path / "unreadable.parquet").to_pylist()
    assert [(row["id"], row["error"].split()[0]) for row in listed] == [
        ("spam/empty.eml", "empty:"),
        ("spam/photo.eml", "a"),
    ]
    assert _mails(config, here).cache.reused
