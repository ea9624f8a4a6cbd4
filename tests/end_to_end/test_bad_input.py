"""Whatever is wrong with the input: one clear line or a verdict, the right code, nothing left."""

import os
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Mailray
from training.bundle import save
from training.config import ModelConfig, TrainConfig, resolve
from training.model import build
from training.weights import tokenizer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("bundle") / "b"
    config = TrainConfig(model=ModelConfig(name="tiny"))
    save(path, build(config.model, 2, 512), tokenizer("tiny"), config, version="1", metrics={})
    return path


def test_mails_that_are_none_are_named_and_the_others_judged(
    mailray: Mailray, bundle: Path, tmp_path: Path
) -> None:
    files = {
        "empty.eml": b"",
        "huge.eml": b"Subject: x\r\n\r\n" + b"spam and eggs " * 3_000_000,
        "photo.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + os.urandom(1000),
        "base64.eml": b"Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8*?!",
        "bodyless.eml": b"Subject: only this\r\n",
    }
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    paths = [str(tmp_path / name) for name in files]
    said = mailray("classify", *paths, str(tmp_path / "none"), "--model", str(bundle), "--json")
    assert said.code == 2
    assert "Traceback" not in said.err
    answers = {Path(answer["file"]).name: answer for answer in said.json["mails"]}
    assert "empty" in answers["empty.eml"]["error"]
    assert "the limit is" in answers["huge.eml"]["error"]
    assert "JPEG" in answers["photo.jpg"]["error"]
    assert "No such file" in answers["none"]["error"]
    assert {answers["base64.eml"]["label"], answers["bodyless.eml"]["label"]} <= {"ham", "spam"}


def test_a_mail_is_explained(mailray: Mailray, bundle: Path, tmp_path: Path) -> None:
    mail = tmp_path / "a.eml"
    mail.write_bytes(b"Subject: Lunch\nReply-To: a@b.example\n\nAt [bold]noon[/bold]?\n")
    (tmp_path / "none.eml").write_bytes(b"")
    words = ["classify", str(mail), str(tmp_path / "none.eml"), "--model", str(bundle), "--explain"]
    said = mailray(*words, "--json")
    assert said.code == 2
    explained, fault = said.json["mails"]
    assert "explanation" not in fault
    assert explained["explanation"]["text"].startswith("subject: Lunch")
    assert "Lunch" in [span["text"] for span in explained["explanation"]["spans"]]


@pytest.mark.parametrize(
    ("words", "said_lines"),
    [
        (
            ["train", "optimizer.lr=-1", "data.max_lenght=9", "scaling.workers=0"],
            ["optimizer.lr", "did you mean max_length", "scaling.workers"],
        ),
        (["train", "--recipe", "spam"], ["no recipe 'spam'"]),
        (["train", "--config", "nowhere.yaml"], ["nowhere.yaml: No such file"]),
        (["train", "--resume", "--name", "x"], ["no run x"]),
        (["tune", "trials=0"], ["trials: input should be greater"]),
        (["evaluate", "--split", "half"], ["--split: one of train, validation, test, all"]),
        (["evaluate", "--model", "no/such"], ["no/such: neither a bundle directory nor NAME"]),
        (["classify", "x", "--explain", "--url", "http://a.example"], ["--explain: needs a model"]),
        (["compare", "absent", "absent"], ["no model absent@champion is registered"]),
        (["compare", "a", "b", "--split", "train"], ["--split: one of test, validation"]),
        (["report", "absent"], ["no model absent@champion is registered"]),
        (["report", "absent", "--split", "half"], ["--split: one of train, validation, test, all"]),
        (["report", "absent", "--output", "no/r.html"], ["--output: there is no directory no"]),
        (["report", "absent", "--output", "tests"], ["--output: tests is a directory"]),
        (
            ["classify", "README.md", "--model", "absent"],
            ["no model absent@champion is registered"],
        ),
        (["classify"], ["name the mails' files, or a source with --bulk"]),
        (["classify", "--bulk", "synthetic:9"], ["--bulk needs --out DIR"]),
        (["classify", "--bulk", "synthetic:9", "--out", "s3://x/y"], ["--out: a directory that"]),
        (["classify", "x.eml", "--bulk", "synthetic:9"], ["--bulk excludes files"]),
        (["classify", "x.eml", "--out", "y"], ["--out and --workers are for --bulk"]),
        (["submit", "--", "classify", "--bulk", "s", "--out", "y"], ["--out with the absolute"]),
        (["serve", "--model", "absent"], ["no model absent@champion is registered"]),
        (
            ["classify", "README.md", "--runtime", "tensorrt"],
            ["--runtime: one of auto, torch, onnx, openvino"],
        ),
        (["export", "absent"], ["no model absent@champion is registered"]),
        (["export", "absent", "--runtime", "tensorrt"], ["--runtime: one of onnx, openvino"]),
        (
            ["export", "absent", "--unchecked", "--source", "m"],
            ["--unchecked and --source exclude"],
        ),
        (
            ["export", "absent", "--unchecked", "--runtime", "openvino"],
            ["--unchecked is not for openvino"],
        ),
        (["data", "fetch", "enron"], ["no corpus 'enron'"]),
        (["data", "suspects", "--output", "x.txt"], ["--output: a file that ends in .parquet"]),
        (["data", "suspects", "seed=1", "--model", "m"], ["--model has a config of its own"]),
        (["submit", "--", "dance"], ["a job is one of train, tune"]),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else None,
)
def test_a_wrong_call_has_code_2_and_a_line_for_each_fault(
    mailray: Mailray, home: Path, words: list[str], said_lines: list[str]
) -> None:
    said = mailray(*words, timeout=60)
    assert said.code == 2, said.err
    lines = [line for line in said.err.splitlines() if line.startswith("mailray: ")]
    assert len(lines) == len(said_lines)
    assert all(any(part in line for line in lines) for part in said_lines), said.err
    assert said.out == ""
    assert not (home / "runs").exists()


def test_an_export_without_held_out_mail_is_refused_unless_nobody_shall_look(
    mailray: Mailray, bundle: Path, tmp_path: Path
) -> None:
    words = ["export", str(bundle), "--out", str(tmp_path / "out")]
    said = mailray(*words)
    assert said.code == 2
    [line] = [line for line in said.err.splitlines() if line.startswith("mailray: ")]
    assert "name held-out mail with --source, or export --unchecked" in line
    assert not (tmp_path / "out").exists()
    said = mailray(*words, "--unchecked", "--json")
    assert said.code == 0, said.err
    assert (said.json["precision"], said.json["check"]) == ("fp32", None)
    assert (tmp_path / "out" / "model.fp32.onnx").stat().st_size == said.json["bytes"]


def test_a_csv_without_labels_and_a_model_without_weights_start_nothing(
    mailray: Mailray, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text("subject,body\nhi,there\n")
    said = mailray("train", "--recipe", "smoke", f"data.source={tmp_path / 'm.csv'}")
    assert said.code == 2
    assert "needs the column label" in said.err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    said = mailray("train", "--recipe", "smoke", f"model.name={tmp_path / 'model'}")
    assert said.code == 2
    assert "has no weights" in said.err
    assert "Traceback" not in said.err
    assert not (home / "runs").exists()


def test_models_that_cannot_be_measured_or_compared_are_told_in_one_line(
    mailray: Mailray, bundle: Path, tmp_path: Path
) -> None:
    config = resolve(recipe="smoke", overrides=["data.labels=[billing,urgent]"])
    model = build(config.model, 2, 64)
    model.head.weight.data.fill_(float("nan"))
    other = tmp_path / "other"
    save(other, model, tokenizer("tiny"), config, version="1", metrics={})
    said = mailray("compare", str(bundle), str(other))
    assert said.code == 2
    [line] = [line for line in said.err.splitlines() if line.startswith("mailray: ")]
    assert "models with different labels cannot be compared: " in line
    assert f"{bundle} (ham, spam) and {other} (billing, urgent)" in line
    (tmp_path / "m.csv").write_text("id,label,body\nm1,billing,your bill\nm2,urgent,at once\n")
    said = mailray("evaluate", "--model", str(other), "--source", str(tmp_path / "m.csv"))
    assert said.code == 2
    [line] = [line for line in said.err.splitlines() if line.startswith("mailray: ")]
    assert "gives 2 of 2 mails no probability, but NaN (m1, m2)" in line


def test_bulk_fails_only_where_no_mail_has_a_verdict(
    mailray: Mailray, bundle: Path, tmp_path: Path
) -> None:
    mail = tmp_path / "mail"
    mail.mkdir()
    (mail / "a").write_bytes(b"")
    words = ["classify", "--bulk", str(mail), "--model", str(bundle), "--json", "--out"]
    said = mailray(*words, str(tmp_path / "one"))
    assert said.code == 2
    assert f"no mail of {mail} has a verdict; the first, a: " in said.json["error"]["message"]
    (mail / "b").write_bytes(b"Subject: x\r\n\r\nhello\r\n")
    said = mailray(*words, str(tmp_path / "one"))
    assert said.code == 2
    assert f"the mails of {mail} have changed since" in said.json["error"]["message"]
    said = mailray(*words, str(tmp_path / "two"))
    assert said.code == 0, said.err
    assert (said.json["mails"], said.json["errors"]) == (2, 1)
    again = mailray(*words, str(tmp_path / "two"))
    assert (again.code, again.json["scored"], again.json["mails"]) == (0, 0, 2)


def test_a_home_that_cannot_be_written_is_named(mailray: Mailray, home: Path) -> None:
    home.write_text("a file, not a directory")
    said = mailray("doctor", timeout=60)
    assert said.code == 1
    assert "set MAILRAY_HOME" in said.err
