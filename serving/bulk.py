"""Bulk classification: every mail of a source to a row of a Parquet file, with Ray Data.

    classify(bundle, open_source("archive.mbox", None, corpora), Path("verdicts"), stages)

Tasks read a piece of the source each, and make tokens of its mails; actors that hold the model take
these, 256 mails at a time, batch them by length and tokens, and write a part each. Reading is a
thirtieth of the work on a CPU, so that one task feeds many models; beside GPUs every core reads.
What is read waits in Ray's object store, within a limit, and tasks pause at it: nothing in any
process grows with the source, but for the list of its pieces.

A part is written once (`serving.parts`): a lost process is begun anew by Ray, and a killed command
by the same command.
"""

import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from serving.classifier import Classifier, Verdict
from serving.decision import PointName
from serving.parts import MANIFEST, PART_MAILS, SUMMARY, mails, schema, there, write_part
from serving.reading import Task, read_parts
from training.bundle import Bundle, BundleError
from training.schema import ConfigError
from training.scorer import Precision, Runtime
from training.sources import Source, SourceError
from training.stages import Stage

_FED: Final = 16
"""Models that one reading task keeps busy, where they run on CPUs."""
_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Of tokens that wait, for each model: 60,000 mails of 256 tokens."""
_THREADS: Final = 1
"""Of a model on a CPU: there is one for each core."""
_RETRIES: Final = 5
"""How often a part is begun anew whose process was lost: not for ever."""


class BulkError(RuntimeError):
    """The job cannot go on; the message says why."""


_FAULTS: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind for kind in (SourceError, BundleError, ConfigError, BulkError)
}
"""What comes from tasks and actors as a row."""


def classify(
    bundle: Bundle,
    source: Source,
    folder: Path,
    stage: Stage,
    *,
    runtime: Runtime = "torch",
    precision: Precision = "auto",
    operating_point: PointName = "auto",
    workers: int | None = None,
) -> dict[str, float]:
    """Write the parts that `folder` (see `serving.parts.begin`) lacks; from a process in a Ray.

    Gives the number of mails that were scored now, and how many a second from the first on. A
    `runtime` of `auto` would be chosen by each model for itself, and parts have other scores then.

    Raises:
        SourceError: a file of the source is gone or has changed since it was opened.
        BulkError: a process was lost too often, or the storage is full or not shared.
    """
    parts, whole = there(folder)
    todo = [
        Task(number, piece, frozenset(parts.get(number, [])))
        for number, piece in enumerate(source.pieces)
        if number not in whole
    ]
    if not todo:
        return {"scored": 0, "mails_per_second": 0.0}
    (folder / SUMMARY).unlink(missing_ok=True)
    most = None if source.mails is None else -(-source.mails // PART_MAILS)
    score = (str(bundle.path), runtime, precision, operating_point, str(folder))
    job = _job(todo, score, workers, most)
    progress = _Progress(stage, source, len(whole), mails(folder) if parts else 0)
    try:
        with warnings.catch_warnings():
            # One piece may have many parts, and Ray counts pieces.
            warnings.filterwarnings("ignore", "The minimum number of concurrent actors")
            for row in job.iter_rows():
                if row["fault"]:
                    kind, _, said = row["fault"].partition(": ")
                    raise _FAULTS[kind](said)
                progress.add(row)
    except ray.exceptions.RayError as error:
        raise BulkError(f"the job was lost: {str(error).strip().splitlines()[-1]}") from error
    return {"scored": progress.scored, "mails_per_second": progress.rate}


def _job(
    todo: Sequence[Task],
    score: tuple[str, str, str, str, str],
    workers: int | None,
    most: int | None,
) -> ray.data.Dataset:
    there_are = ray.cluster_resources()
    gpus, cpus = int(there_are.get("GPU", 0)), int(there_are.get("CPU", 1))
    models = max(1, workers or gpus or cpus)
    models = models if most is None else min(models, most)
    # Whole shares: three models on two GPUs are two on one of them.
    share = 1 / -(-models // gpus) if gpus else 0
    reading: Any = partial(read_parts, bundle=score[0])  # Ray's types know no partial functions
    readers = cpus if gpus else -(-models // _FED)
    with DataContext.current(_context(models)), warnings.catch_warnings():
        # By default a part whose mails kill the process would be begun anew for ever; Ray 2.60 has
        # no other way to say so.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return (
            ray.data.from_items([{"task": task} for task in todo], override_num_blocks=len(todo))
            .map_batches(
                reading,
                batch_size=1,
                compute=TaskPoolStrategy(size=min(readers, len(todo))),
                num_cpus=0,  # the models may have them all
            )
            .map_batches(
                Score,
                fn_constructor_args=score,
                batch_size=1,
                batch_format="pyarrow",
                # The next part is there when one ends, and none waits for a model that is busy.
                compute=ActorPoolStrategy(size=models, max_tasks_in_flight_per_actor=2),
                num_cpus=0 if gpus else 1,
                num_gpus=share,
                max_task_retries=_RETRIES,
            )
        )


def _context(models: int) -> DataContext:
    """For this job alone."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=max(4, models) * _WAITING_BYTES
    )
    context.target_max_block_size = 1  # a part a block: a model gets no more than one at once
    return context


class _Progress:
    """How far it is, how fast, and for how long."""

    def __init__(self, stage: Stage, source: Source, pieces: int, done: int) -> None:
        self.scored = 0
        self._stage, self._source, self._pieces, self._before = stage, source, pieces, done
        self._pieces_before = pieces
        self._began = 0.0
        self._ended = 0.0
        if done:
            stage.update(f"{done:,} mails are there already")

    def add(self, row: Mapping[str, Any]) -> None:
        """One more part."""
        self._began = min(self._began or row["began"], row["began"])
        self._ended = max(self._ended, row["ended"])
        self.scored += row["mails"]
        self._pieces += row["last"]
        done, total = float(self._before + self.scored), self._source.mails
        of = "" if total is None else f" of {total:,}"
        now, whole = (self.scored, total) if total is not None else (
            self._pieces - self._pieces_before, len(self._source.pieces)
        )  # fmt: skip
        share = self._pieces / whole if total is None else done / whole
        left = (whole * (1 - share)) / now * (self._ended - self._began) if now else None
        wait = "" if left is None else f", {_duration(left)} left"
        self._stage.update(f"{done:,.0f}{of} mails, {self.rate:,.0f} mails/s{wait}", share, 1)

    @property
    def rate(self) -> float:
        """Mails a second since the first part was begun."""
        return self.scored / max(self._ended - self._began, 1e-9)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


class Score:
    """An actor's model: writes the verdicts on a part's mails."""

    def __init__(
        self, bundle: str, runtime: Runtime, precision: Precision, point: PointName, folder: str
    ) -> None:
        self._folder = Path(folder)
        self._fault: str | None = None
        try:
            if not (self._folder / MANIFEST).is_file():
                raise BulkError(
                    f"{folder} is not there on node {socket.gethostname()}; --out must be on "
                    "storage that all nodes share"
                )
            self._classifier = Classifier(Path(bundle), precision, runtime, operating_point=point)
            self._schema = schema(
                self._classifier.info.labels, multi=self._classifier.info.multi_label
            )
        except (BundleError, ConfigError, BulkError) as error:
            self._fault = f"{type(error).__name__}: {error}"

    def __call__(self, parts: pa.Table) -> dict[str, list[Any]]:
        # A forked process has as many as the machine; and it holds for the thread that sets it.
        torch.set_num_threads(_THREADS)
        [row] = parts.to_pylist()
        began = time.time()
        fault = self._fault or row["fault"]
        if fault is None:
            try:
                table = self._table(row)
                write_part(self._folder, row["piece"], row["part"], table, last=row["last"])
            except OSError as error:
                said = error.strerror or str(error)
                fault = f"BulkError: {self._folder} cannot be written: {said}"
        return {
            "fault": [fault],
            "mails": [0 if fault else len(row["ids"])],
            "last": [bool(row["last"])],
            "began": [began],
            "ended": [time.time()],
        }

    def _table(self, row: Mapping[str, Any]) -> pa.Table:
        readable = [at for at, tokens in enumerate(row["tokens"]) if tokens is not None]
        found = dict(
            zip(readable, self._verdicts([row["tokens"][at] for at in readable]), strict=True)
        )
        said = [
            self._row(found[at], row["tokens"][at]) if at in found else {"error": error}
            for at, error in enumerate(row["errors"])
        ]
        info = self._classifier.info
        about = {"model": info.name, "version": info.version}
        named = zip(row["ids"], row["labels"], said, strict=True)
        return pa.Table.from_pylist(
            [about | {"id": id_, "source_label": label} | rest for id_, label, rest in named],
            self._schema,
        )

    def _verdicts(self, tokens: Sequence[list[int]]) -> list[Verdict | Exception]:
        """A batch that fails is scored anew in halves, so that one mail harms no other."""
        if not tokens:
            return []
        try:
            return list(self._classifier.verdicts(tokens))
        except RuntimeError as error:
            if len(tokens) == 1:
                return [error]
            middle = len(tokens) // 2
            return self._verdicts(tokens[:middle]) + self._verdicts(tokens[middle:])

    @staticmethod
    def _row(verdict: Verdict | Exception, tokens: Sequence[int]) -> dict[str, Any]:
        if isinstance(verdict, Exception):
            return {"error": f"the model failed on it: {type(verdict).__name__}"}
        if any(p != p for p in verdict.scores.values()):
            return {"error": "the model gives it no probability, but NaN"}
        return {
            "label": verdict.label,
            "labels": list(verdict.labels),
            "probability": verdict.probability,
            "tokens": len(tokens),
            "unsure": verdict.unsure,
            "operating_point": verdict.operating_point,
        } | {f"p_{label}": p for label, p in verdict.scores.items()}
