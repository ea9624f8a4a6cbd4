"""The end of a run: its best checkpoint bundled, tested and registered."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from safetensors.torch import load_file

from training import bundle as bundles
from training.baselines import baselines
from training.bundle import Bundle
from training.calibration import temperature
from training.checkpoint import MODEL, weights_digest
from training.evaluation import Scored, score
from training.home import Home
from training.mails import Mails
from training.model import build
from training.operating import fit
from training.provenance import provenance
from training.recorder import Recorder
from training.reference import Reference, reference
from training.run import Run
from training.stages import Stages
from training.status import Status
from training.upload import register
from training.weights import tokenizer


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave."""

    name: str
    bundle: Bundle
    model: str
    version: str
    champion: bool
    weights: str
    """SHA-256 of the best checkpoint's weights."""
    mails_per_second: float
    seconds: float
    epochs: list[dict[str, Any]]
    """A row for each that this command trained: losses, validation metrics, seconds."""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.name,
            "bundle": self.bundle.path,
            "model": self.model,
            "version": self.version,
            "champion": self.champion,
            "weights": self.weights,
            "mails_per_second": self.mails_per_second,
            "seconds": self.seconds,
            "epochs": self.epochs,
            "metrics": self.bundle.metrics,
        }


def complete(
    run: Run,
    mails: Mails,
    best: Path,
    home: Home,
    stages: Stages,
    recorder: Recorder,
    began: float,
    epochs: Sequence[dict[str, Any]],
) -> Result:
    """Bundle, test and register the best checkpoint of a run that is trained."""
    made = bundled(run, mails, best, home, stages, epochs)
    return registered(run, made, home, stages, recorder, began)


def registered(
    run: Run,
    made: Bundle,
    home: Home,
    stages: Stages,
    recorder: Recorder,
    began: float,
    status: Status | None = None,
) -> Result:
    """Register the bundle of a run.

    Raises:
        TrackingError: the registry does not answer, or refuses.
    """
    recorder.log({f"test_{key}": value for key, value in made.metrics["test"].items()}, 0)
    with stages.stage("registry") as stage:
        run_id = recorder.tracked()
        version, champion = register(home, made, run_id, run.config.tracking)
        stage.update(f"{made.name} version {version}{', now champion' if champion else ''}")
    seconds = time.monotonic() - began
    return Result(
        name=run.path.name,
        bundle=made,
        model=made.name,
        version=version,
        champion=champion,
        weights=made.provenance["weights"],
        mails_per_second=status.rate if status else 0.0,
        seconds=seconds,
        epochs=status.history if status else [],
    )


def bundled(
    run: Run,
    mails: Mails,
    checkpoint: Path,
    home: Home,
    stages: Stages,
    epochs: Sequence[dict[str, Any]],
) -> Bundle:
    """The bundle of a checkpoint, with the metrics of validation and test in it."""
    config = run.config
    model = build(
        config.model, len(config.data.labels), config.data.max_length,
        multi=config.data.multi_label, wide=config.data.wide_length > 0,
    )  # fmt: skip
    model.load_state_dict(load_file(checkpoint / MODEL))
    words = tokenizer(config.model.name)
    place = run.path / "bundle"
    bundles.save(place, model, words, config, version=run.path.name, metrics={})
    labels = config.data.label_set
    with stages.stage("evaluation") as stage:
        both = np.concatenate([mails.on("validation"), mails.on("test")])
        scored = score(
            place, mails.cache, both, labels, config.scaling.precision, config.scaling.fewest,
            lambda done: stage.update(f"{done:,} of {len(both):,} mails", done, len(both)),
        )  # fmt: skip
        validation, test = scored.cut(len(mails.on("validation")))
        metrics, heat, points = {}, 1.0, []
        if not config.data.with_validation:  # else it was trained on those mails
            heat = temperature(validation.truth, validation.scores)
            validation, test = validation.at(heat), test.at(heat)
            points = fit(validation.positive) if len(labels.names) == 2 and not labels.multi else []
            metrics["validation"] = validation.report()
        metrics["test"] = test.report(points)
        said = metrics["test"]
        stage.update(
            f"{len(test.ids):,} test mails: accuracy {said['accuracy']:.4f}, "
            f"ROC AUC {said['roc_auc']:.4f}"
        )
    if config.tracking.baselines and (compared := _baselines(run, mails, home, stages)):
        metrics["baselines"] = compared
    return bundles.save(
        place, model, words, config, version=run.path.name, metrics=metrics, temperature=heat,
        points=points, epochs=epochs,
        curves=_curves(test),
        reference=_reference(mails, validation, test),
        provenance=provenance(mails) | {"weights": weights_digest(checkpoint)},
    )  # fmt: skip


def _curves(test: Scored) -> dict[str, Any]:
    """As `Bundle.curves` has them; of two labels the curve of the second tells the first's too."""
    two = not test.labels.multi and len(test.labels.names) == 2
    found = test.by_label if not two else {test.labels.names[1]: test.positive}
    return {label: curve.told() for label, curve in found.items()}


def _reference(mails: Mails, validation: Scored, test: Scored) -> Reference | None:
    """Of the mails that the model has not learned from."""
    unseen = {"test": test} if mails.with_validation else {"validation": validation, "test": test}
    rows = np.concatenate([mails.on(split) for split in unseen])
    tokens = mails.cache.table()["tokens"]
    return reference(
        test.labels.names,
        np.concatenate([scored.scores for scored in unseen.values()]),
        pc.list_value_length(tokens).to_numpy()[rows],
        tuple(unseen),
        multi=test.labels.multi,
    )


def _baselines(run: Run, mails: Mails, home: Home, stages: Stages) -> dict[str, Any]:
    """The report of each baseline on the test mails; none where the mails cannot be read again."""
    try:
        found = baselines(run.config.data, home, mails, stages)
    except Exception as error:  # whatever it is: no reason to lose what was trained
        said = str(error).strip() or type(error).__name__
        stages.note(f"no baselines: {said.splitlines()[0]}")
        return {}
    return {kind: scored.report() for kind, scored in found.items()}
