"""Tokens: computed once by a Ray Data job, kept as Arrow files under a key of all they depend on.

    tokens/<key>/part-00000.arrow ...   a row a mail: SCHEMA
    tokens/<key>/unreadable.parquet     id, label and reason of each mail that could not be read
    tokens/<key>/manifest.json          written last: its existence means that the cache is whole

The files are made in a directory beside, which is then renamed, so two jobs at once do no harm.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from tokenizers import Tokenizer

from training.likeness import HASHES, signatures
from training.mail import MAIL_TEXT_VERSION, Mail, MailError, MailTextOptions, parse, render
from training.readers import read
from training.sources import Piece, Source
from training.tokenizing import encode

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),  # that the source itself names
        ("date", pa.int64()),  # epoch seconds, 0 where unknown
        ("thread", pa.uint64()),  # 0 where unknown
        ("campaign", pa.uint64()),
        ("signature", pa.list_(pa.uint32(), HASHES)),
        ("tokens", pa.list_(pa.int32())),
        ("error", pa.string()),
    ]
)
MANIFEST = "manifest.json"
UNREADABLE = "unreadable.parquet"
_ALGORITHM: Final = 3
"""Of what else decides a row: the cut of long mails, signatures, threads, campaigns. Raise it when
they change."""


@dataclass(frozen=True, slots=True)
class TokenCache:
    """The tokens of a source; `path` must be readable from every node."""

    path: Path
    mails: int
    unreadable: int
    reused: bool

    def table(self) -> pa.Table:
        """All rows in the source's order, memory-mapped."""
        return pa.concat_tables(_parts(self.path))


def column(cache: Path, name: str) -> pa.ChunkedArray:
    """One column of a cache, in the source's order, memory-mapped."""
    return pa.chunked_array([chunk for part in _parts(cache) for chunk in part[name].chunks])


def _parts(cache: Path) -> list[pa.Table]:
    return [read_part(file) for file in sorted(cache.glob("part-*.arrow"))]


def read_part(file: Path) -> pa.Table:
    """One file of a cache, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    max_length: int,
    head: float,
    options: MailTextOptions,
    folder: Path,
    on_progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """The cache of a source's tokens below `folder`, made unless it is there.

    A mail that cannot be read is a row with an error and no tokens; it is never trained on.
    """
    vocabulary = tokenizer.to_str()
    versions = [MAIL_TEXT_VERSION, _ALGORITHM, options.key()]
    facts = [source.fingerprint, versions, vocabulary, max_length, head]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    place = folder / key
    if (place / MANIFEST).is_file():
        return _opened(place, reused=True)
    scratch = folder / f".{key}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    try:
        job = Tokenize(vocabulary, max_length, head, options, str(scratch))
        counts = _run(source, job, on_progress)
        _list_unreadable(scratch)
        manifest = {
            "source": source.name,
            "mail_text": MAIL_TEXT_VERSION,
            "max_length": max_length,
            "head": head,
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest | counts, indent=2), "utf-8")
        try:
            scratch.rename(place)
        except OSError:
            if not (place / MANIFEST).is_file():  # else another job was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _opened(place, reused=False)


def _opened(place: Path, *, reused: bool) -> TokenCache:
    manifest = json.loads((place / MANIFEST).read_text("utf-8"))
    return TokenCache(place, manifest["mails"], manifest["unreadable"], reused)


def _run(
    source: Source, job: "Tokenize", on_progress: Callable[[int], None] | None
) -> dict[str, int]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pieces = [{"number": number, "piece": piece} for number, piece in enumerate(source.pieces)]
    pool = max(1, min(len(pieces), int(ray.cluster_resources().get("CPU", 1)), os.cpu_count() or 1))
    done = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        Tokenize,
        fn_constructor_args=job.arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=pool),
    )
    counts = {"mails": 0, "unreadable": 0}
    for row in done.iter_rows():
        for name in counts:
            counts[name] += int(row[name])
        if on_progress:
            on_progress(counts["mails"])
    return counts


def _list_unreadable(folder: Path) -> None:
    """The broken mails with their reasons, in the source's order."""
    schema = pa.schema([SCHEMA.field(name) for name in ("id", "label", "error")])
    with pq.ParquetWriter(folder / UNREADABLE, schema) as writer:
        for file in sorted(folder.glob("part-*.arrow")):
            rows = read_part(file).select(schema.names)
            writer.write_table(rows.filter(rows["error"].is_valid()))


class Tokenize:
    """Reads the mails of one piece, and writes what training needs of them to one file."""

    def __init__(
        self, vocabulary: str, max_length: int, head: float, options: MailTextOptions, folder: str
    ) -> None:
        self.arguments = (vocabulary, max_length, head, options, folder)
        self.options = options
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool's actors are the parallelism
        self.tokenizer = Tokenizer.from_str(vocabulary)
        self.max_length, self.head, self.folder = max_length, head, Path(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        number, piece = int(batch["number"][0]), batch["piece"][0]
        mails = unreadable = 0
        file = self.folder / f"part-{number:05d}.arrow"
        with pa.ipc.new_file(str(file), SCHEMA) as writer:
            for table in self._tables(piece):
                writer.write_table(table)
                mails += table.num_rows
                unreadable += table.num_rows - table["error"].null_count
        return {"mails": [mails], "unreadable": [unreadable]}

    def _tables(self, piece: Piece) -> Iterator[pa.Table]:
        for rows in read(piece):
            mails, texts, errors = zip(*map(self._mail, rows), strict=True)
            bad = [error is not None for error in errors]
            tokens = encode(self.tokenizer, texts, self.max_length, self.head)
            signature = signatures(texts, [row["id"] for row in rows])
            dates = [r["date"] or m.date or 0 for r, m in zip(rows, mails, strict=True)]
            said = {name: [row[name] for row in rows] for name in ("id", "label", "group", "split")}
            yield pa.table(
                said
                | {
                    "date": pa.array(dates, pa.int64()),
                    "thread": _keys([mail.thread for mail in mails]),
                    "campaign": _keys([_campaign(mail) for mail in mails]),
                    "signature": pa.FixedSizeListArray.from_arrays(
                        pa.array(signature.ravel()), HASHES
                    ),
                    "tokens": [None if b else t for t, b in zip(tokens, bad, strict=True)],
                    "error": pa.array(errors, pa.string()),
                },
                SCHEMA,
            )

    def _mail(self, row: dict[str, Any]) -> tuple[Mail, str, str | None]:
        """The mail of a row, its text, and why there is none."""
        if row["error"] is not None:
            return Mail(), "", row["error"]
        if row["text"] is not None:
            return Mail(), row["text"], None
        try:
            mail = parse(row["raw"], self.options)
            return mail, render(mail), None
        except MailError as error:
            return Mail(), "", str(error)


def _campaign(mail: Mail) -> str:
    """Sender and subject without digits and reply marks; empty where one of them is."""
    subject = "".join(filter(str.isalpha, mail.subject.lower().removeprefix("re:")))
    return f"{mail.address}\0{subject}" if mail.address and subject else ""


def _keys(names: Sequence[str]) -> pa.Array:
    """A 64-bit number for each name, 0 for none."""
    return pa.array([_key(name) if name else 0 for name in names], pa.uint64())


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
