"""Baselines: they learn from training mails alone, and stand in the order of the split."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training import baselines as module
from training import synthetic
from training.baselines import baselines
from training.completion import _baselines as compared
from training.config import DataConfig, resolve
from training.counting import read
from training.home import Home
from training.linear import KINDS, Linear, byte_grams, features
from training.mail import DEFAULT_OPTIONS
from training.mails import Mails, survey
from training.run import Run
from training.sources import SourceError
from training.stages import Quiet
from training.weights import tokenizer

SPAM, HAM, BULK = "claim your free prize now", "the minutes of the meeting", "news of the week"


class Said(Quiet):
    """Keeps the last line of each kind."""

    last = noted = ""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self.last = text

    def note(self, text: str) -> None:
        self.noted = text


def _mails(data: DataConfig, home: Path) -> Mails:
    return survey(data, tokenizer("tiny"), Home(home), Quiet())[0]


def _counted(mails: list[tuple[bytes | None, str | None]]) -> pa.Table:
    rows = [{"id": str(n), "raw": raw, "text": text} for n, (raw, text) in enumerate(mails)]
    return features(pa.Table.from_pylist(rows), DEFAULT_OPTIONS)


def test_grams_are_those_of_the_first_3000_bytes() -> None:
    assert byte_grams(b"abc").tolist() == []
    assert len(byte_grams(b"abcdabcd")) == 4  # abcd, bcda, cdab, dabc
    assert set(byte_grams(b"abcd")) < set(byte_grams(b"\xff\x00abcd\r\n"))
    long = np.random.default_rng(0).bytes(3000)
    assert byte_grams(long).tolist() == byte_grams(long + b"and more").tolist()
    assert byte_grams(long).tolist() != byte_grams(long[:-1]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_labels_each_has_a_probability_of_its_own(kind: str) -> None:
    counted = _counted([(None, SPAM), (None, HAM), (None, f"{SPAM} {HAM}"), (None, BULK)] * 5)
    has = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, bool)
    scores = Linear.fit(kind, counted, has, multi=True).scores(counted)  # type: ignore[arg-type]
    assert ((scores > 0.5) == has).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_three_labels_the_probabilities_add_up_and_an_absent_one_has_none(kind: str) -> None:
    counted = _counted([(None, SPAM), (None, HAM), (None, BULK)] * 5)
    codes = np.array([0, 1, 2] * 5)
    for absent in (None, 1):
        codes[codes == absent] = 2
        has = codes[:, None] == np.arange(3)
        scores = Linear.fit(kind, counted, has, multi=False).scores(counted)  # type: ignore[arg-type]
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
        assert (scores.argmax(1) == codes).all()
    assert (scores[:, 1] == 0).all()


@pytest.mark.usefixtures("ray_session")
def test_a_split_is_scored_in_its_order_by_models_of_the_training_mails(home: Path) -> None:
    data = DataConfig(source="synthetic:600", max_length=32)
    mails = _mails(data, home)
    found = baselines(data, Home(home), mails, Quiet())
    made = list(synthetic.mails(600))
    train, test = mails.on("train"), mails.on("test")
    known, asked = (_counted([(made[row][2], None) for row in rows]) for rows in (train, test))
    has = mails.labels[train][:, None] == np.arange(2)
    assert list(found) == list(KINDS)
    for kind, scored in found.items():
        assert scored.ids == [made[row][0] for row in test]
        assert scored.truth.tolist() == mails.labels[test].tolist()
        alone = Linear.fit(kind, known, has, multi=False).scores(asked)  # type: ignore[arg-type]
        assert (scored.scores == alone).all()
        assert scored.report()["accuracy"] > 0.9  # one mail in thirty says what it is not


@pytest.mark.usefixtures("ray_session")
def test_a_source_that_is_gone_costs_a_run_its_baselines_and_nothing_else(
    home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m.jsonl"
    rows = [{"id": i, "label": n, "raw": raw.decode()} for i, n, raw in synthetic.mails(90)]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = resolve(recipe="smoke", overrides=[f"data.source={file}"])
    mails = _mails(config.data, home)
    file.unlink()
    said = Said()
    assert compared(Run(tmp_path / "run", config), mails, Home(home), said) == {}
    assert said.noted.startswith("no baselines: ")


@pytest.mark.usefixtures("ray_session")
def test_very_many_mails_are_not_all_learned_from(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(source="synthetic:600", max_length=32)
    mails = _mails(data, home)
    monkeypatch.setattr(module, "MOST", 100)
    said = Said()
    first, again = (baselines(data, Home(home), mails, said) for _ in range(2))
    assert f"100 of {len(mails.on('train'))} mails to learn from" in said.last
    assert all((first[kind].scores == again[kind].scores).all() for kind in KINDS)


@pytest.mark.usefixtures("ray_session")
def test_ids_that_stand_for_several_mails_and_broken_ones_disorder_nothing(
    home: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    rows = [
        {"id": f"{chance.randrange(20)}", "label": chance.choice(["ham", "spam"]), "raw": raw}
        for raw in (f"Subject: no {n}\n\nword{n} {HAM}" * (n % 7 > 0) for n in range(60))
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(source=str(file), max_length=32)
    mails = _mails(data, home)
    assert mails.cache.unreadable == 9
    usable = mails.on("all")[::3]
    found = read(data, Home(home), mails, usable, lambda _: None)
    expected = _counted([(rows[row]["raw"].encode(), None) for row in usable])
    assert found.drop_columns("id").to_pylist() == expected.drop_columns("id").to_pylist()
    file.write_text("\n".join(map(json.dumps, rows[:50])))
    with pytest.raises(SourceError, match="has changed since its tokens were made"):
        read(data, Home(home), mails, usable, lambda _: None)
