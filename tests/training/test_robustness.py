"""Robustness: figures of the clean mails first, then of those under each disguise."""

import json
from pathlib import Path

import numpy as np
import pytest

from training import bundle as bundles
from training.bundle import Bundle
from training.config import DataConfig, resolve
from training.disguises import DISGUISES
from training.evaluation import evaluate
from training.home import Home
from training.mail import DEFAULT_OPTIONS, mail_text
from training.model import build
from training.robustness import CLEAN, looks, robustness
from training.scorer import Scorer
from training.stages import Quiet
from training.synthetic import mails
from training.weights import tokenizer


def _bundle(folder: Path, **data: object) -> Bundle:
    """An untrained model, which takes about half of all mails for spam."""
    config = resolve(recipe="smoke", overrides=["data.source=synthetic:100"])
    config = config.model_copy(update={"data": config.data.model_copy(update=data)})
    model = build(config.model, len(config.data.labels), 64, multi=config.data.multi_label)
    return bundles.save(
        folder / "bundle", model, tokenizer("tiny"), config, version="1", metrics={}
    )


@pytest.mark.usefixtures("ray_session")
def test_each_row_tells_of_the_mails_under_one_disguise(home: Path, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    scored = evaluate(bundle, Home(home), Quiet(), split="all", precision="fp32", workers=1)
    data = DataConfig(source="synthetic:100")
    rows = robustness(bundle, data, Home(home), scored.ids, "fp32", 2, Quiet())
    assert [row["disguise"] for row in rows] == [CLEAN, *DISGUISES]
    clean = scored.report()
    for key in ("accuracy", "recall", "false_positive_rate", "roc_auc"):
        assert rows[0][key] == pytest.approx(clean[key], abs=1e-6)
        assert rows[0]["intervals"][key] == pytest.approx(clean["intervals"][key], abs=1e-6)
    assert (rows[0]["mails"], rows[0]["changed"]) == (100, 0)
    by_name = {row["disguise"]: row for row in rows}
    assert by_name["short links"]["changed"] == 0, "made-up mails have no link"
    assert by_name["short links"]["accuracy"] == rows[0]["accuracy"]
    assert by_name["good words"]["changed"] == 100
    json.dumps(rows)

    scorer = Scorer(bundle, "fp32")
    raws = {id_: raw for id_, _, raw in mails(100)}
    at = 1 + list(DISGUISES).index("upper case")
    texts = [looks({"id": i, "raw": raws[i], "text": None}, DEFAULT_OPTIONS)[at] for i in raws]
    spam = scorer.score(scorer.tokens(texts))[:, 1] > 0.5
    truth = np.array([label == "spam" for _, label, _ in mails(100)])
    assert by_name["upper case"]["recall"] == pytest.approx((spam & truth).sum() / truth.sum())
    assert by_name["upper case"]["false_positive_rate"] == pytest.approx(
        (spam & ~truth).sum() / (~truth).sum()
    )


@pytest.mark.usefixtures("ray_session")
def test_mails_with_several_labels_in_a_table_are_disguised_too(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "desk.jsonl"
    body = "please answer the letter before Friday, as number"
    rows = [
        {"id": f"m{n}", "label": ["a"] * (n % 2) + ["b"] * (n % 3 == 0), "body": f"{body} {n}"}
        for n in range(12)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    labels = {"source": str(file), "labels": ("a", "b", "c"), "multi_label": True}
    bundle = _bundle(tmp_path, **labels)
    data = DataConfig(**labels)  # type: ignore[arg-type]
    ids = [f"m{n}" for n in (3, 1, 2)]
    found = robustness(bundle, data, Home(home), ids, "fp32", 1, Quiet())
    assert [row["mails"] for row in found] == [3] * (1 + len(DISGUISES))
    assert all("false_positive_rate" not in row for row in found)
    assert set(found[0]["intervals"]) == {"accuracy"}


def test_a_mail_looks_as_it_is_and_as_each_disguise_makes_it() -> None:
    raw = b"From: A <a@example.com>\r\nSubject: Cheapest tablets\r\n\r\nBuy tablets at last\r\n"
    texts = looks({"id": "1", "raw": raw, "text": None}, DEFAULT_OPTIONS)
    assert len(texts) == 1 + len(DISGUISES)
    assert texts[0] == mail_text(raw)
    assert "subject: CHEAPEST TABLETS" in texts[1 + list(DISGUISES).index("upper case")]
    assert looks({"id": "1", "raw": b"\x89PNG", "text": None}, DEFAULT_OPTIONS) == []


def test_a_mail_that_is_too_broken_stays_as_it_is() -> None:
    raw = b"Subject: x\r\nContent-Type: text/plain; charset=ut\xe4-8\r\n\r\ncaf\xe9 tonight\r\n"
    texts = looks({"id": "1", "raw": raw, "text": None}, DEFAULT_OPTIONS)
    assert texts == [mail_text(raw)] * (1 + len(DISGUISES))
