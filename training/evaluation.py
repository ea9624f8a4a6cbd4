"""Evaluation: a bundle's scores of every mail of a split or source, and the report on them.

mailray evaluate [--model M] [--source S] [--split test] [--predictions FILE]
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
import ray.data

from training import metrics
from training.bundle import Bundle, BundleError, load
from training.calibration import calibrated
from training.config import DataConfig, TrainConfig
from training.curve import Curve
from training.home import Home
from training.labels import Labels
from training.mails import Mails, survey
from training.operating import OperatingPoint, told
from training.schema import read_yaml, validate
from training.scorer import Precision, Runtime, Scorer
from training.sources import SourceError
from training.stages import Stages
from training.tokens import UNREADABLE, TokenCache

_BLOCK = 256
"""Mails of one scoring task."""

SplitName = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True, slots=True)
class Scored:
    """The mails of an evaluation and what the model made of them."""

    labels: Labels
    ids: list[str]
    truth: np.ndarray
    """int64 [mails], or bool [mails, labels] where a mail may have several"""
    scores: np.ndarray
    """float32 [mails, labels]"""

    def report(self, points: Sequence[OperatingPoint] = ()) -> dict[str, Any]:
        """As `training.metrics.report`, and what each operating point did."""
        guess = self.labels.guess(self.scores)
        values = metrics.report(self.truth, guess, self.scores, self.labels)
        return values | ({"points": told(points, self.positive)} if points else {})

    @property
    def positive(self) -> Curve:
        """Of two labels, one of which a mail has, the scores of the second."""
        return Curve.of(self.truth == 1, self.scores[:, 1])

    @property
    def by_label(self) -> dict[str, Curve]:
        """A curve for each label, against the rest."""
        names = self.labels.names
        has = self.truth if self.labels.multi else self.truth[:, None] == np.arange(len(names))
        return {name: Curve.of(has[:, at], self.scores[:, at]) for at, name in enumerate(names)}

    def cut(self, at: int) -> tuple["Scored", "Scored"]:
        """The first so many mails, and the others."""
        first, rest = (
            replace(self, ids=self.ids[part], truth=self.truth[part], scores=self.scores[part])
            for part in (slice(None, at), slice(at, None))
        )
        return first, rest

    def at(self, temperature: float) -> "Scored":
        """The same mails, their scores calibrated."""
        scores = calibrated(self.scores, temperature, multi=self.labels.multi)
        return replace(self, scores=scores)


def evaluate(
    bundle: Bundle,
    home: Home,
    stages: Stages,
    *,
    source: str | None = None,
    split: SplitName = "test",
    precision: Precision = "auto",
    runtime: Runtime = "torch",
    workers: int = 2,
) -> Scored:
    """Score a split of the source that the bundle was trained on, or all of another source.

    Raises:
        SourceError: there are no such mails.
    """
    data = data_of(bundle, source)
    mails, findings = survey(data, bundle.tokenizer(), home, stages)
    rows = mails.on(split if source is None else "all")
    for finding in findings if source is not None else []:
        stages.note(f"{finding.what}: {finding.count:,}{finding.shown}")
    if not len(rows):
        raise SourceError(f"{data.source} has no readable mail in split {split}{_why(mails)}")
    return scored_on(bundle, mails, rows, stages, precision, workers, runtime)


def data_of(bundle: Bundle, source: str | None = None) -> DataConfig:
    """The mails that a bundle was trained on, or another source's, read in the same way."""
    data = validate(TrainConfig, read_yaml(bundle.path / "config.yaml")).data
    return data if source is None else data.model_copy(update={"source": source})


def _why(mails: Mails) -> str:
    """Of a source that has no mail for a model, what is wrong with the first."""
    broken = pyarrow.parquet.read_table(mails.cache.path / UNREADABLE).slice(0, 1).to_pylist()
    none_left = mails.cache.unreadable == mails.cache.mails
    return f"; the first, {broken[0]['id']}: {broken[0]['error']}" if broken and none_left else ""


def scored_on(
    bundle: Bundle,
    mails: Mails,
    rows: np.ndarray,
    stages: Stages,
    precision: Precision = "auto",
    workers: int = 2,
    runtime: Runtime = "torch",
) -> Scored:
    """Score some rows of a source's mails, and say how far that is."""
    with stages.stage("evaluation") as stage:
        scored = score(
            bundle.path, mails.cache, rows, bundle.label_set, precision, workers,
            lambda done: stage.update(f"{done:,} mails", done, len(rows)), runtime,
        )  # fmt: skip
        stage.update(f"{len(rows):,} mails")
    return scored


def score(
    bundle: Path,
    cache: TokenCache,
    rows: np.ndarray,
    labels: Labels,
    precision: Precision,
    workers: int,
    on_progress: Any = None,
    runtime: Runtime = "torch",
) -> Scored:
    """Score rows of a token cache in a Ray Data job; the result is in the order of `rows`.

    Raises:
        BundleError: the model gives mails no probability.
    """
    table = cache.table().select(["id", "label", "tokens"])
    blocks = [table.take(rows[at : at + _BLOCK]) for at in range(0, len(rows), _BLOCK)]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    models = max(1, min(workers, len(blocks)))
    job = ray.data.from_blocks(blocks).map_batches(
        Score,
        fn_constructor_args=(str(bundle), precision, runtime),
        batch_format="pyarrow",
        batch_size=_BLOCK,  # of a model that has a GPU, Ray will not take None
        compute=ray.data.ActorPoolStrategy(size=models),
        num_gpus=gpu_share(models),
    )
    ids: list[str] = []
    spelled: list[str] = []
    scores: list[np.ndarray] = []
    for batch in job.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        ids += batch["id"].to_pylist()
        spelled += batch["label"].to_pylist()
        scores += list(batch["scores"].to_pylist())
        if on_progress:
            on_progress(len(ids))
    truth = labels.truth(labels.codes(pa.chunked_array([spelled], pa.string())))
    scored = Scored(labels, ids, truth, np.asarray(scores, np.float32))
    wrong = np.flatnonzero(~np.isfinite(scored.scores).all(1))
    if len(wrong):
        raise BundleError(
            f"{bundle} gives {len(wrong):,} of {len(ids):,} mails no probability, but NaN "
            f"({', '.join(ids[row] for row in wrong[:3])}{', ...' if len(wrong) > 3 else ''}): its "
            "weights are damaged, train anew; or too large for bf16, take --precision fp32"
        )
    return scored


def gpu_share(models: int) -> float:
    """What each of so many models gets of the cluster's GPUs; 0 where it has none.

    Whole shares: three models on two GPUs are two on one of them.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return 1 / -(-models // gpus) if gpus else 0.0


class Score:
    """Adds the scores of each mail's tokens."""

    def __init__(self, bundle: str, precision: Precision, runtime: Runtime) -> None:
        self.scorer = Scorer(load(Path(bundle)), precision, runtime)

    def __call__(self, mails: pa.Table) -> pa.Table:
        scores = self.scorer.score(mails["tokens"].to_pylist())
        column = pa.array(scores.tolist(), pa.list_(pa.float32()))
        return mails.select(["id", "label"]).append_column("scores", column)


def write_predictions(scored: Scored, file: Path) -> None:
    """One Parquet row for each mail: id, true label, predicted label, probability of each label."""
    labels = scored.labels
    columns: dict[str, Any] = {
        "id": scored.ids,
        "label": labels.spell(scored.truth),
        "predicted": labels.spell(labels.guess(scored.scores)),
    }
    columns |= {f"p_{label}": scored.scores[:, i] for i, label in enumerate(labels.names)}
    scratch = file.with_name(f".{file.name}.part")
    pyarrow.parquet.write_table(pa.table(columns), scratch)
    scratch.replace(file)
