"""Places: a local path or a URI (s3://, gs://, hdfs://, ...), listed and opened in the same way.

Local paths go through the standard library, because Arrow refuses file names that are not UTF-8
and walks round symlink loops until the kernel stops it; everything else is `pyarrow.fs`.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol, cast

import pyarrow as pa
import pyarrow.fs

from training.readers.piece import SourceError, reason

Kind = Literal["file", "folder"]
Facts = tuple[int, int]
"""Bytes and time of change, in ns; (-1, 0) where there is no such file."""

_MAILDIR = {"cur", "new"}
_ENDS = 64 * 1024


class Entry(NamedTuple):
    """A file below a folder."""

    path: str
    facts: Facts
    maildir: bool
    """It is in cur/ or new/ of a Maildir."""


class Place(Protocol):
    """A file or folder; paths are relative to it, '' is the place itself."""

    def kind(self, path: str = "") -> Kind | None:
        """What is there."""

    def children(self) -> tuple[list[str], list[str]]:
        """Sorted names of the sub-folders and of the files; hidden ones are left out."""

    def walk(self, top: str) -> Iterator[Entry]:
        """The files below a folder, each once, in a fixed order; hidden ones are left out.

        Of a Maildir, the mails of cur/ and new/, and those of its hidden sub-folders.
        """

    def facts(self, paths: Sequence[str]) -> list[Facts]:
        """Size and time of each file."""

    def identity(self, path: str) -> object:
        """Equal for two paths that lead to the same folder."""

    def open(self, path: str = "") -> BinaryIO:
        """The file, to read and seek in."""


@lru_cache(maxsize=32)
def place_of(name: str) -> Place:
    """The place of an absolute local path or a URI; raises SourceError where no such can be."""
    return Remote(name) if "://" in name else Local(name)


def absolute(name: str) -> str:
    """The name as every node understands it."""
    return name if "://" in name else str(Path(name).expanduser().absolute())


def parent(name: str) -> str:
    """The folder that a file is in."""
    path, mark, options = name.partition("?") if "://" in name else (name, "", "")
    return (path.rstrip("/").rpartition("/")[0] or "/") + mark + options


def base_name(name: str) -> str:
    """The last part of a path or URI."""
    path = name.partition("?")[0] if "://" in name else name
    return path.rstrip("/").rpartition("/")[2]


def file_fingerprint(place: Place, facts: Facts) -> str:
    """A digest of a file's size, time, first and last 64 KiB."""
    digest = hashlib.sha256(repr(facts).encode())
    with place.open() as file:
        digest.update(file.read(_ENDS))
        if facts[0] > _ENDS:
            file.seek(max(_ENDS, facts[0] - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()


class Local:
    """A path on this machine."""

    def __init__(self, root: str) -> None:
        self.root = root

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root  # noqa: PTH118

    def kind(self, path: str = "") -> Kind | None:
        full = Path(self._full(path))
        return "folder" if full.is_dir() else "file" if full.exists() else None

    def children(self) -> tuple[list[str], list[str]]:
        folders, files = _scan(self.root)
        return (
            [name for name in folders if not name.startswith(".")],
            [name for name in files if not name.startswith(".")],
        )

    def walk(self, top: str) -> Iterator[Entry]:
        seen = {self.identity("")}  # a link to the root would bring in the other labels' mails
        stack = [(top, False)]
        while stack:
            folder, in_maildir = stack.pop()
            try:
                identity = self.identity(folder)
                if identity in seen and folder:
                    continue  # a symlink loop, or a second way to the same mails
                seen.add(identity)
                folders, files = _scan(self._full(folder))
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                raise SourceError(
                    f"data.source: {self._full(folder)} cannot be listed: {reason(error)}"
                ) from error
            prefix = f"{folder}/" if folder else ""
            is_maildir = set(folders) >= _MAILDIR
            for name in [] if is_maildir else files:
                if not name.startswith("."):
                    path = prefix + name
                    yield Entry(path, self._facts(self._full(path)), in_maildir)
            for name in reversed(folders):
                if (name in _MAILDIR or name[0] == ".") if is_maildir else name[0] != ".":
                    stack.append((prefix + name, is_maildir and name in _MAILDIR))

    def facts(self, paths: Sequence[str]) -> list[Facts]:
        return [self._facts(self._full(path)) for path in paths]

    @staticmethod
    def _facts(full: str) -> Facts:
        try:
            status = os.stat(full)  # noqa: PTH116
        except (OSError, ValueError):
            return -1, 0
        return status.st_size, status.st_mtime_ns

    def identity(self, path: str) -> object:
        status = os.stat(self._full(path))  # noqa: PTH116
        return status.st_dev, status.st_ino

    def open(self, path: str = "") -> BinaryIO:
        full = Path(self._full(path))
        if not stat.S_ISREG(full.stat().st_mode):  # opening a pipe would wait for its writer
            raise OSError("not a regular file")
        return full.open("rb")


def _scan(folder: str) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            (folders if is_folder else files).append(entry.name)
    return sorted(folders), sorted(files)


class Remote:
    """A path of a file system that Arrow knows."""

    def __init__(self, uri: str) -> None:
        try:
            self.system, self.root = pa.fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ImportError, ValueError) as error:
            raise SourceError(
                f"data.source: {uri} cannot be used: {reason(error)}; "
                "local paths, s3://, gs:// and hdfs:// are allowed"
            ) from error

    def _full(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.root, path)) if path else self.root

    def kind(self, path: str = "") -> Kind | None:
        found = self.system.get_file_info(self._full(path)).type
        kinds: dict[object, Kind] = {
            pa.fs.FileType.File: "file",
            pa.fs.FileType.Directory: "folder",
        }
        return kinds.get(found)

    def _list(self, path: str, *, recursive: bool) -> list[pa.fs.FileInfo]:
        selector = pa.fs.FileSelector(self._full(path), recursive=recursive)
        return sorted(self.system.get_file_info(selector), key=lambda info: str(info.path))

    def children(self) -> tuple[list[str], list[str]]:
        infos = [info for info in self._list("", recursive=False) if info.base_name[:1] != "."]
        return (
            [info.base_name for info in infos if not info.is_file],
            [info.base_name for info in infos if info.is_file],
        )

    def walk(self, top: str) -> Iterator[Entry]:
        infos = self._list(top, recursive=True)
        start = len(self.root.rstrip("/")) + 1
        folders = {info.path[start:] for info in infos if not info.is_file}
        folders |= {posixpath.dirname(info.path[start:]) for info in infos}
        maildirs = {
            posixpath.dirname(folder)
            for folder in folders
            if {posixpath.join(posixpath.dirname(folder), name) for name in _MAILDIR} <= folders
        }
        hidden = {
            folder
            for folder in folders
            if folder != top
            and posixpath.basename(folder).startswith(".")
            and posixpath.dirname(folder) not in maildirs
        }
        for info in infos:
            path = info.path[start:]
            folder, name = posixpath.split(path)
            owner = posixpath.dirname(folder)
            in_maildir = owner in maildirs and posixpath.basename(folder) in _MAILDIR
            if (
                not info.is_file
                or name.startswith(".")
                or folder in maildirs
                or (owner in maildirs and posixpath.basename(folder) == "tmp")
                or any(f"{path}/".startswith(f"{one}/") for one in hidden)
            ):
                continue
            yield Entry(path, _facts_of(info), in_maildir)

    def facts(self, paths: Sequence[str]) -> list[Facts]:
        return [
            _facts_of(info)
            for info in self.system.get_file_info([self._full(path) for path in paths])
        ]

    def identity(self, path: str) -> object:
        return self._full(path)

    def open(self, path: str = "") -> BinaryIO:
        return cast(BinaryIO, self.system.open_input_file(self._full(path)))


def _facts_of(info: pa.fs.FileInfo) -> Facts:
    return (info.size or 0, info.mtime_ns or 0) if info.is_file else (-1, 0)
