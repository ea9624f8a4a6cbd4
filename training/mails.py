"""The mails of a config: read, tokenized unless they are cached, grouped and split."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from training import splits
from training.config import DataConfig
from training.groups import Groups, group
from training.home import Home
from training.mail import text_options
from training.plan import Rows
from training.quality import Finding, examine
from training.sources import Source, SourceError, open_source
from training.splits import LEFT_OUT, SPLITS, Ledger, Shares
from training.stages import Stages
from training.tokens import TokenCache, prepare


@dataclass(frozen=True, slots=True)
class Mails:
    """Token cache, labels and lengths of a source's mails, and who stands on which side."""

    cache: TokenCache
    lengths: np.ndarray
    """int32 [all rows of the cache], tokens that the encoder reads, 0 of a mail that is none"""
    labels: np.ndarray
    """int32 [all rows], codes of `training.labels`, -1 where one is unknown"""
    side: np.ndarray
    """int8 [all rows], index into SPLITS; LEFT_OUT of what is not used"""
    groups: Groups
    with_validation: bool = False
    """Whether validation mails are trained on too."""
    fingerprint: str = ""
    """Of the source, whatever is made of it."""

    def on(self, name: str) -> np.ndarray:
        """The rows of a split, or of `all`, int64."""
        if name == "all":
            return np.flatnonzero((self.lengths > 0) & (self.labels >= 0))
        return np.flatnonzero(self.side == SPLITS.index(name))

    def rows(self) -> Rows:
        """What training reads."""
        validation = self.on("validation")
        train = self.on("train")
        if self.with_validation:
            train = np.sort(np.concatenate([train, validation]))
        return Rows(train, validation, self.lengths, self.labels)

    @property
    def left_out(self) -> int:
        """Readable mails that are on no side, since they would tie two together."""
        usable = (self.lengths > 0) & (self.labels >= 0)
        return int((usable & (self.side == LEFT_OUT)).sum())


def load(data: DataConfig, tokenizer: Tokenizer, home: Home, stages: Stages) -> Mails:
    """The mails of `data.source`; fails only where training could not go on.

    Raises:
        SourceError: there is no such source, or a split lacks a label.
    """
    mails, findings = survey(data, tokenizer, home, stages)
    for finding in findings:
        stages.note(f"{finding.what}: {finding.count:,}{finding.shown}")
    labels = data.label_set
    for name in SPLITS:
        rows = mails.on(name)
        absent = labels.of(labels.indicator(mails.labels[rows]).sum(0) == 0)
        if absent:
            raise SourceError(
                f"data.source: {data.source} gives no {' and no '.join(absent)} to split {name} "
                f"({len(rows)} mails); more mails, or another share in data.{name}, are needed"
            )
    return mails


def survey(
    data: DataConfig, tokenizer: Tokenizer, home: Home, stages: Stages
) -> tuple[Mails, list[Finding]]:
    """As `load`, whatever state the mails are in, with what is odd about them."""
    with stages.stage("tokens") as stage:
        source = open_source(data.source, data.label_set, home.corpora)
        cache = prepare(
            source,
            tokenizer,
            data.read_length,
            data.keep_head,
            text_options(data.extras),
            home.tokens,
            lambda done: stage.update(f"{done:,} mails", done, source.mails),
        )
        reused = ", from the cache" if cache.reused else ""
        stage.update(f"{cache.mails:,} mails, {cache.unreadable:,} unreadable{reused}")
    with stages.stage("splits") as stage:
        table = cache.table()
        kept = pc.fill_null(pc.list_value_length(table["tokens"]), 0).to_numpy()
        lengths = np.minimum(kept, data.max_length)
        labels = data.label_set.codes(table["label"])
        groups = group(table)
        side = _sides(data, source, table, lengths, labels, groups, home)
        mails = Mails(
            cache, lengths.astype(np.int32), labels, side, groups, data.with_validation,
            source.fingerprint,
        )  # fmt: skip
        sizes = ", ".join(f"{len(mails.on(name)):,} {name}" for name in SPLITS)
        stage.update(
            f"{sizes}; {groups.alike:,} near-duplicates kept together"
            + (f", {mails.left_out:,} left out" if mails.left_out else "")
        )
        findings = examine(table, mails.lengths, mails.labels, groups, cache.path)
    return mails, findings


def _sides(
    data: DataConfig,
    source: Source,
    table: pa.Table,
    lengths: np.ndarray,
    labels: np.ndarray,
    groups: Groups,
    home: Home,
) -> np.ndarray:
    """The side of every row; what was dealt anew is added to the source's ledger."""
    usable = np.flatnonzero((lengths > 0) & (labels >= 0))
    chosen = table.select(["id", "group", "label", "split", "date"]).take(usable)
    ids = chosen["id"].to_pylist()
    named = pc.index_in(chosen["split"], pa.array(SPLITS)).fill_null(LEFT_OUT).to_numpy()
    shares = Shares(data.validation, data.test, data.seed, data.split)
    ledger = Ledger(ledger_file(data, home))
    known = ledger.read()
    pairs = zip(chosen["group"].to_pylist(), chosen["label"].to_pylist(), strict=True)
    dealt = splits.assign(
        ids,
        ["\0".join(pair) for pair in pairs],
        groups.of[usable],
        chosen["date"].to_numpy(),
        named.astype(np.int8),
        shares,
        known,
    )
    ledger.add(ids, dealt, known)
    side = np.full(table.num_rows, LEFT_OUT, np.int8)
    side[usable] = dealt
    return side


def ledger_file(data: DataConfig, home: Home) -> Path:
    """Where the sides of a source's mails are kept: a file for each way to split it."""
    facts = [data.source, data.validation, data.test, data.seed, data.split]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    return home.splits / f"{key}.arrow"
