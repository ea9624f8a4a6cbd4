"""Suspects: labels that were planted wrong are found, near the top, and hardly any other."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from training import synthetic
from training.bundle import save
from training.config import DataConfig, resolve
from training.evaluation import Scored
from training.home import Home
from training.labels import Labels
from training.mails import survey
from training.model import build
from training.sources import SourceError
from training.stages import Quiet
from training.suspects import cross_validated, suspects, unseen, write
from training.weights import tokenizer

TWO = Labels(("ham", "spam"))


def _scored(labels: Labels, truth: np.ndarray, scores: np.ndarray) -> Scored:
    ids = [f"m{n}" for n in range(len(truth))]
    return Scored(labels, ids, truth, scores.astype(np.float32))


def _cross_validated(file: Path, rows: list[dict[str, str]], home: Path) -> Scored:
    file.write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(source=str(file), max_length=32)
    mails, _ = survey(data, tokenizer("tiny"), Home(home), Quiet())
    return cross_validated(data, Home(home), mails, Quiet())


def _rows(count: int) -> list[dict[str, str]]:
    """Mails of which none says what it is not."""
    return [
        {"id": id_, "label": label, "raw": raw.decode()}
        for number, (id_, label, raw) in enumerate(synthetic.mails(count))
        if number % 30 != 7
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_planted_labels_are_ranked_by_how_improbable_they_are(count: int) -> None:
    chance = np.random.default_rng(0)
    codes = chance.integers(0, count, 300)
    sure = chance.uniform(0.8, 1, (300, 1))
    scores = np.where(codes[:, None] == np.arange(count), sure, (1 - sure) / (count - 1))
    labels = Labels(("a", "b", "c")[:count])
    assert suspects(_scored(labels, codes.copy(), scores)) == []
    truth = codes.copy()
    planted = np.flatnonzero(sure[:, 0] > 0.98)
    truth[planted] = (codes[planted] + 1) % count
    given = truth.copy()
    found = suspects(_scored(labels, truth, scores))
    assert {row["id"] for row in found} == {f"m{n}" for n in planted}
    assert [row["rank"] for row in found] == list(range(1, len(planted) + 1))
    assert [row["probability"] for row in found] == sorted(row["probability"] for row in found)
    for row in found:
        number = int(row["id"][1:])
        assert (row["label"], row["likelier"]) == (
            labels.names[truth[number]], labels.names[codes[number]],
        )  # fmt: skip
    assert (truth == given).all()


def test_of_several_labels_the_one_that_is_wrong_is_told() -> None:
    chance = np.random.default_rng(0)
    has = chance.random((300, 3)) < 0.5
    sure = chance.uniform(0.8, 0.97, (300, 3))
    scores = np.where(has, sure, 1 - sure)
    scores[7] = np.where(has[7], 0.99, 0.01)
    labels = Labels(("a", "b", "c"), True)
    assert suspects(_scored(labels, has.copy(), scores)) == []
    truth = has.copy()
    truth[7, 1] = not truth[7, 1]
    [row] = suspects(_scored(labels, truth, scores))
    assert row["id"] == "m7"
    assert row["probability"] == pytest.approx(0.01)
    assert [row["label"], row["likelier"]] == labels.spell(np.stack([truth[7], has[7]]))


@pytest.mark.parametrize("truth", [[1] * 9, [0] * 8 + [1]])
def test_mails_of_one_label_and_scores_that_are_all_equal_are_no_fault(truth: list[int]) -> None:
    assert suspects(_scored(TWO, np.array(truth), np.full((9, 2), 0.5))) == []
    several = np.stack([np.array(truth, bool), np.zeros(9, bool)], 1)
    assert suspects(_scored(Labels(("a", "b"), True), several, np.full((9, 2), 0.5))) == []


@pytest.mark.usefixtures("ray_session")
def test_clean_mail_has_few_suspects_and_planted_ones_are_on_top(
    home: Path, tmp_path: Path
) -> None:
    rows = _rows(600)
    assert len(suspects(_cross_validated(tmp_path / "clean.jsonl", rows, home))) <= 3
    planted = {row["id"] for row in rows[5::40]}
    for row in rows[5::40]:
        row["label"] = "ham" if row["label"] == "spam" else "spam"
    scored = _cross_validated(tmp_path / "wrong.jsonl", rows, home)
    assert scored.ids == [row["id"] for row in rows]
    found = suspects(scored)
    top = {row["id"] for row in found[: len(planted)]}
    assert len(top & planted) >= 0.8 * len(planted)
    assert len(found) <= 1.5 * len(planted)
    assert [TWO.names[code] for code in scored.truth] == [row["label"] for row in rows]


@pytest.mark.usefixtures("ray_session")
def test_near_duplicates_do_not_vouch_for_each_other(home: Path, tmp_path: Path) -> None:
    """Ten mails that are alike, all of them wrong, would each be right by the other nine."""
    rows = _rows(300)
    body = next(row for row in rows if row["label"] == "ham")["raw"].partition("\r\n\r\n")[2]
    copies = [f"Subject: the notes\r\n\r\n{body}\r\n{body}\r\n{'!' * n}" for n in range(10)]
    rows += [{"id": f"copy{n}", "label": "spam", "raw": raw} for n, raw in enumerate(copies)]
    found = suspects(_cross_validated(tmp_path / "m.jsonl", rows, home))
    assert {f"copy{n}" for n in range(10)} <= {row["id"] for row in found}


@pytest.mark.usefixtures("ray_session")
def test_a_label_of_one_mail_judges_no_other(home: Path, tmp_path: Path) -> None:
    rows = [row for row in _rows(90) if row["label"] == "ham"]
    spam = {"id": "s", "label": "spam", "raw": "Subject: win\r\n\r\nwin a prize"}
    with pytest.raises(SourceError, match="too few mails of spam to judge others by: 1"):
        _cross_validated(tmp_path / "m.jsonl", [*rows, spam], home)


@pytest.mark.usefixtures("ray_session")
def test_a_model_judges_the_mails_that_it_has_not_learned_from(home: Path, tmp_path: Path) -> None:
    for more, sides in (([], ("validation", "test")), (["data.with_validation=true"], ("test",))):
        config = resolve(recipe="smoke", overrides=more)
        bundle = save(
            tmp_path / "bundle", build(config.model, 2, 64), tokenizer("tiny"), config,
            version="1", metrics={},
        )  # fmt: skip
        mails, _ = survey(config.data, tokenizer("tiny"), Home(home), Quiet())
        expected = np.sort(np.concatenate([mails.on(side) for side in sides]))
        scored = unseen(bundle, Home(home), Quiet(), workers=1)
        assert scored.ids == mails.cache.table()["id"].take(expected).to_pylist()


def test_the_list_is_written_as_its_file_is_called(tmp_path: Path) -> None:
    found = [
        {"rank": 1, "id": "a,b", "label": "ham", "likelier": "spam", "probability": 0.25},
        {"rank": 2, "id": "c", "label": "spam", "likelier": "ham", "probability": 0.5},
    ]
    write(found, tmp_path / "s.parquet")
    write(found, tmp_path / "s.csv")
    assert pq.read_table(tmp_path / "s.parquet").to_pylist() == found
    assert pyarrow.csv.read_csv(tmp_path / "s.csv").to_pylist() == found
    write([], tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == '"rank","id","label","likelier","probability"\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "s.parquet"]
