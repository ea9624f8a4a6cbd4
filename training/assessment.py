"""Assessment: all that can be found out about a model on one set of mails, for its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from training.baselines import baselines
from training.bundle import Bundle
from training.config import DataConfig
from training.evaluation import Scored, SplitName, data_of, evaluate
from training.excerpts import Excerpt, excerpts
from training.home import Home
from training.mails import survey
from training.pairs import same, trained_on
from training.robustness import robustness
from training.scorer import Precision
from training.slices import details, slices
from training.sources import open_source
from training.stages import Stages
from training.suspects import suspects

LISTED: Final = 50
"""Mails that were wrong, and suspects, that a report names."""


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
    data = data_of(bundle, source)
    scored = evaluate(
        bundle, home, stages, source=source, split=split, precision=precision, workers=workers
    )
    own = source is None or same(source, data_of(bundle).source)
    unseen = not own or (source is None and not trained_on(data, split))
    found: dict[str, Any] = {
        "slices": slices(scored, details(data, home, scored.ids, stages), bundle.points)
    }
    if disguised:
        found["robustness"] = robustness(bundle, data, home, scored.ids, precision, workers, stages)
    if source is None and unseen:
        mails, _ = survey(data, bundle.tokenizer(), home, stages)
        found["baselines"] = baselines(data, home, mails, stages, split)
    if unseen:  # of a mail that it was trained on a model knows the label, wrong or not
        found["suspects"] = suspects(scored)
    evaluation = Evaluation(
        bundle=bundle,
        mails=f"{split} mails" if source is None else f"mails of {source}",
        scored=scored,
        values=scored.report(bundle.points),
        epochs=bundle.epochs,
        provenance=_provenance(bundle, data, home),
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


def _provenance(bundle: Bundle, data: DataConfig, home: Home) -> dict[str, str]:
    """Where the model, the mails and the report come from."""
    source = open_source(data.source, data.label_set, home.corpora)
    return {
        **{f"Model, {key}": said for key, said in bundle.provenance.items()},
        "Mails": data.source,
        "Mails, fingerprint": source.fingerprint,
        "Report made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
