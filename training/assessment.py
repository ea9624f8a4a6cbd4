"""Assessment: all that can be found out about a model on one set of mails, for its report."""

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.bundle import Bundle
from training.config import DataConfig, TrainConfig
from training.evaluation import Scored, SplitName, evaluate
from training.excerpts import Excerpt, excerpts
from training.home import Home
from training.mails import survey
from training.schema import read_yaml, validate
from training.scorer import Precision
from training.sources import open_source
from training.stages import Stages

LISTED: Final = 50
"""Mails that were wrong, and suspects, that a report names."""
_PACKAGES: Final = ("mailray", "torch", "transformers", "tokenizers", "ray", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A model, the mails it was evaluated on, and all that was found; None where nobody looked."""

    bundle: Bundle
    mails: str
    """Which, such as 'test mails'."""
    scored: Scored
    values: Mapping[str, Any]
    """`Scored.report` with the bundle's operating points."""
    slices: Sequence[Mapping[str, Any]] | None = None
    """Worst first."""
    robustness: Sequence[Mapping[str, Any]] | None = None
    """The first row is of the mails as they are."""
    baselines: Mapping[str, Scored] | None = None
    """On the same mails, by their names."""
    suspects: Sequence[Mapping[str, Any]] | None = None
    """Mails whose label may be wrong, the likeliest first."""
    excerpts: Mapping[str, Excerpt] | None = None
    """What mails say, by their ids; None unless it may be shown."""
    epochs: Sequence[Mapping[str, Any]] = ()
    """As `Status.history` gives them."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where model, mails and report come from."""

    @property
    def points(self) -> Sequence[Mapping[str, Any]]:
        """What each operating point did; none unless there are two labels."""
        found: Sequence[Mapping[str, Any]] = self.values.get("points", ())
        return found

    @property
    def wrong(self) -> np.ndarray:
        """Rows of the mails with a wrong verdict, the most confident first."""
        scored = self.scored
        guess = scored.labels.guess(scored.scores)
        if scored.labels.multi:
            missed = (guess != scored.truth).any(1)
            sure = np.abs(scored.scores - scored.truth).max(1)
        else:
            missed, sure = guess != scored.truth, scored.scores.max(1)
        rows = np.flatnonzero(missed)
        order: np.ndarray = rows[np.argsort(-sure[rows], kind="stable")]
        return order


def assess(
    bundle: Bundle,
    home: Home,
    stages: Stages,
    *,
    source: str | None = None,
    split: SplitName = "test",
    precision: Precision = "auto",
    workers: int = 2,
    disguised: bool = True,
    content: bool = False,
) -> Evaluation:
    """Evaluate a bundle, and look at the same mails from all sides.

    Baselines are trained on the mails that the model was trained on, and so are there only for a
    split of its own source; `content` brings excerpts of the mails that the report names.

    Raises:
        SourceError: there are no such mails.
    """
    config = validate(TrainConfig, read_yaml(bundle.path / "config.yaml"))
    data = config.data if source is None else config.data.model_copy(update={"source": source})
    scored = evaluate(
        bundle, home, stages, source=source, split=split, precision=precision, workers=workers
    )
    values = scored.report(bundle.points)
    found: dict[str, Any] = {}
    if details := _part("slices", "details"):
        slices = _part("slices", "slices")
        assert slices is not None
        found["slices"] = slices(scored, details(data, home, scored.ids, stages), bundle.points)
    if disguised and (robustness := _part("robustness", "robustness")):
        found["robustness"] = robustness(bundle, data, home, scored.ids, precision, workers, stages)
    if source is None and (baselines := _part("baselines", "baselines")):
        mails, _ = survey(data, bundle.tokenizer(), home, stages)
        found["baselines"] = baselines(data, home, mails, stages, split)
    if suspects := _part("suspects", "suspects"):
        found["suspects"] = suspects(scored)
    evaluation = Evaluation(
        bundle=bundle,
        mails=f"mails of {source}"
        if source
        else "all mails"
        if split == "all"
        else f"{split} mails",
        scored=scored,
        values=values,
        epochs=getattr(bundle, "epochs", ()),
        provenance=_provenance(data, home),
        **found,
    )
    if not content:
        return evaluation
    named = {scored.ids[row] for row in evaluation.wrong[:LISTED]}
    named |= {row["id"] for row in list(evaluation.suspects or ())[:LISTED]}
    with stages.stage("excerpts") as stage:
        said = excerpts(data, home, named)
        stage.update(f"{len(said):,} mails")
    return replace(evaluation, excerpts=said)


def _part(module: str, function: str) -> Callable[..., Any] | None:
    """A function of training; None while the module is not there yet."""
    try:
        found: Callable[..., Any] = getattr(import_module(f"training.{module}"), function)
    except ModuleNotFoundError:
        return None
    return found


def _provenance(data: DataConfig, home: Home) -> dict[str, str]:
    """Where the mails and the report come from."""
    return {
        "Source": data.source,
        "Fingerprint of the source": open_source(
            data.source, data.label_set, home.corpora
        ).fingerprint,
        "Report made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Commit": _commit(),
        "Versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {_version(name)}" for name in _PACKAGES),
            ]
        ),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of a checkout"


def _commit() -> str:
    """Of the checkout that mailray runs from."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown: mailray runs from no checkout"
    return asked.stdout.strip()
