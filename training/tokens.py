"""Tokens: computed once by a Ray Data job, kept as Arrow files under a key of all they depend on.

    tokens/<key>/part-00000.arrow ...   id, label, group, tokens (list<int32>), error
    tokens/<key>/manifest.json          written last: its existence means that the cache is whole

The files are made in a directory beside, which is then renamed, so two jobs at once do no harm.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from tokenizers import Tokenizer

from training.mail import MAIL_TEXT_VERSION, MailError, mail_text
from training.sources import Source

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("error", pa.string()),
    ]
)
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class TokenCache:
    """The tokens of a source; `path` must be readable from every node."""

    path: Path
    mails: int
    unreadable: int
    reused: bool

    def table(self) -> pa.Table:
        """All rows in the source's order, memory-mapped."""
        files = sorted(self.path.glob("part-*.arrow"))
        return pa.concat_tables([read_part(file) for file in files])


def read_part(file: Path) -> pa.Table:
    """One file of a cache, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    max_length: int,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> TokenCache:
    """The cache of a source's tokens below `folder`, made unless it is there.

    A mail that cannot be read is a row with an error and no tokens; it is never trained on.
    """
    vocabulary = tokenizer.to_str()
    facts = [source.fingerprint, MAIL_TEXT_VERSION, vocabulary, max_length]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    place = folder / key
    if (place / MANIFEST).is_file():
        return _opened(place, reused=True)
    scratch = folder / f".{key}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    try:
        counts = _run(source, vocabulary, max_length, scratch, on_progress)
        manifest = {"source": source.name, "mail_text": MAIL_TEXT_VERSION, "max_length": max_length}
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
    source: Source,
    vocabulary: str,
    max_length: int,
    scratch: Path,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    parts = [
        part.append_column("part", pa.array([number] * part.num_rows, pa.int32()))
        for number, part in enumerate(source.parts)
    ]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pool = max(1, min(len(parts), int(ray.cluster_resources().get("CPU", 1)), os.cpu_count() or 1))
    done = ray.data.from_arrow(parts).map_batches(
        Tokenize,
        fn_constructor_args=(vocabulary, max_length, str(scratch)),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=pool),
    )
    mails = unreadable = 0
    for row in done.iter_rows():
        mails += row["mails"]
        unreadable += row["unreadable"]
        if on_progress:
            on_progress(mails, source.mails)
    return {"mails": mails, "unreadable": unreadable}


class Tokenize:
    """Reads, renders and tokenizes the mails of one part, and writes its file."""

    def __init__(self, vocabulary: str, max_length: int, folder: str) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool's actors are the parallelism
        self.tokenizer = Tokenizer.from_str(vocabulary)
        self.tokenizer.enable_truncation(max_length)
        self.folder = Path(folder)

    def __call__(self, part: pa.Table) -> pa.Table:
        texts, errors = zip(*map(_text, part.to_pylist()), strict=True)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        table = pa.table(
            {
                "id": part["id"],
                "label": part["label"],
                "group": part["group"],
                "tokens": [
                    None if error else of_mail
                    for of_mail, error in zip(tokens, errors, strict=True)
                ],
                "error": list(errors),
            },
            SCHEMA,
        )
        file = self.folder / f"part-{part['part'][0].as_py():05d}.arrow"
        with pa.ipc.new_file(str(file), SCHEMA) as writer:
            writer.write_table(table)
        unreadable = sum(error is not None for error in errors)
        return pa.table({"mails": [len(texts)], "unreadable": [unreadable]})


def _text(row: dict[str, Any]) -> tuple[str, str | None]:
    """The text of a row, or why there is none."""
    try:
        if row["text"] is not None:
            return row["text"], None
        return mail_text(
            row["raw"] if row["raw"] is not None else Path(row["path"]).read_bytes()
        ), None
    except MailError as error:
        return "", str(error)
    except OSError as error:
        return "", error.strerror or str(error)
