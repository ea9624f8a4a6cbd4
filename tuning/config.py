"""The study config: what is searched, for which objective, how, on what and for how long.

searcher: bayes
trials: 8
objective: val_recall_at_fpr_0.005
space:
  optimizer.lr: {loguniform: [1e-5, 5e-4]}
  batching.size: {choice: [8, 16, 32]}
stopping: {kind: asha}
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from training.config import TrainConfig, resolve
from training.metrics import NAMES
from training.schema import ConfigError, Section, read_yaml, recipe_file, validate
from tuning.space import Axis, combinations, conditions, override

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "bayes"
METRICS = (*(f"val_{name}" for name in NAMES), "seconds")
LOWER = ("val_loss", "seconds")
"""Metrics of which less is better."""
Direction = Literal["minimize", "maximize"]


class Stopping(Section):
    """Which trials are ended before their last epoch."""

    kind: Literal["none", "asha"] = "none"
    """`asha`: after `grace` epochs, and `factor` times as many, and so on, a trial pauses, and goes
    on when it is among the best 1 of `factor` that came so far (`tuning.halving`)."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    factor: int = Field(default=3, ge=2)
    """How much smaller each next round is, and how much longer."""


class Budget(Section):
    """What ends a study before all its trials are done; trials that run are stopped then."""

    epochs: int | None = Field(default=None, ge=1)
    """Of all trials together; with `asha`, what the best one needs for its end is kept of them."""
    hours: float | None = Field(default=None, gt=0)
    """Wall time, of all sessions of the study together; with `asha`, one trial still comes to its
    end where none has."""


class Resources(Section):
    """What each trial has."""

    workers: int = Field(default=1, ge=1)
    """Data-parallel workers. One trains in the trial's own process, which lives on for the next
    trial: a start of tenths of a second. The global batches are the same for any number."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores of each worker."""
    gpus: float = Field(default=0.0, ge=0, le=1)
    """GPUs of each worker; a fraction lets several trials share one."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.workers > 1 and self.gpus not in (0.0, 1.0):
            raise ValueError(
                f"resources.gpus: workers of one trial cannot share a GPU; 0 or 1 with "
                f"resources.workers={self.workers}, got {self.gpus:g}"
            )
        return self


class StudyConfig(Section):
    """What is searched, how, and for how long."""

    recipe: str = "custom"
    """The recipe it came from; names the study."""
    train: str = "spam-minilm"
    """The training recipe that each trial starts from."""
    searcher: Literal["grid", "random", "bayes", "gp", "pbt"] = "bayes"
    """Every combination; random points; Optuna's tree-structured Parzen estimator, which looks at
    all keys together; its Gaussian process; or a population, whose poor members take the weights of
    good ones every `interval` epochs, and go on with settings that are a little different."""
    space: dict[str, Axis] = Field(min_length=1)
    """Training config keys and their values."""
    objective: str | dict[str, Direction] = "val_loss"
    """A metric of a trial's best epoch, the one with the lowest validation loss, whose weights are
    kept; or several with their directions, which give a Pareto front."""
    trials: int = Field(default=8, ge=1)
    """How many points; `grid` tries every combination instead."""
    interval: int = Field(default=1, ge=1)
    """Epochs of a population's members, of which there are `trials`, between two selections."""
    baseline: bool = True
    """The first point is what the training recipe and the overrides say, where the space has it."""
    seeds: int = Field(default=1, ge=1)
    """Training seeds for each point: trials are then `trials` x `seeds`."""
    stopping: Stopping = Stopping()
    budget: Budget = Budget()
    resources: Resources = Resources()
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at once at most; as many as the cluster has room for where it is not given."""
    warm_start: str | None = None
    """An earlier study whose results the searcher learns from."""
    retrain: bool = False
    """Train the best settings once more, on the validation mails too, and register that."""
    seed: int = 0
    """Of the searcher."""

    @field_validator("objective")
    @classmethod
    def _known(cls, value: str | dict[str, Direction]) -> str | dict[str, Direction]:
        unknown = [name for name in ([value] if isinstance(value, str) else value)
                   if name not in METRICS]  # fmt: skip
        if unknown or not value:
            raise ValueError(
                f"objective: one or more of {', '.join(METRICS)}, got {', '.join(unknown) or value}"
            )
        return value

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for key, axis in self.space.items():
            if (axis.grid is not None) != (self.searcher == "grid"):
                kinds = "grid" if self.searcher == "grid" else "uniform, loguniform, int or choice"
                raise ValueError(f"space.{key}: searcher {self.searcher} takes {kinds} alone")
        if faults := conditions(self.space):
            raise ValueError("\n".join(faults))
        selects = "stopping.kind: asha" if self.stopping.kind != "none" else ""
        if self.searcher == "pbt":
            selects = "searcher: pbt"
            fixed = [key for key in self.space if not _changeable(key)]
            if fixed or self.seeds > 1 or self.stopping.kind != "none":
                raise ValueError(
                    "searcher: pbt changes settings while it trains: it takes no stopping, seeds=1 "
                    "and a space of rates, decays and dropout, as optimizer.lr"
                    + (f"; got {', '.join(fixed)}" if fixed else "")
                )
        if len(self.directions) > 1 and selects:
            raise ValueError(f"{selects} needs one objective, got {', '.join(self.directions)}")
        return self

    @property
    def directions(self) -> dict[str, Direction]:
        """Each objective, and which way is better."""
        if isinstance(self.objective, str):
            return {self.objective: "minimize" if self.objective in LOWER else "maximize"}
        return self.objective

    @property
    def metric(self) -> str:
        """The objective, the first of several."""
        return next(iter(self.directions))

    def planned(self, epochs: int) -> tuple[int, int]:
        """How many trials there will be, where trainings have so many epochs, and how long each."""
        if self.searcher == "pbt":
            return self.trials * -(-epochs // self.interval), min(self.interval, epochs)
        return self.points * self.seeds, epochs

    @property
    def points(self) -> int:
        """How many different settings there will be."""
        return len(combinations(self.space)) if self.searcher == "grid" else self.trials


def _changeable(key: str) -> bool:
    """Whether a training can go on with another value of a key."""
    section, _, name = key.partition(".")
    if section == "model":
        return name in ("dropout", "attention_dropout")
    return section == "optimizer" and name in (
        "lr", "wide_lr", "weight_decay", "layer_decay", "clip", "label_smoothing", "focal_gamma",
    )  # fmt: skip


def resolve_study(
    *, recipe: str | None = None, file: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[StudyConfig, TrainConfig]:
    """The study of a recipe or a YAML file, and the training config that its trials start from.

    Overrides whose key is the study's (`trials=4`) change the study, all others the training.

    Raises:
        ConfigError: all faults of both together; keys and values of the space are checked too.
    """
    if file is None:
        name = recipe or DEFAULT_RECIPE
        tree = {"recipe": name} | read_yaml(recipe_file(name, RECIPES))
    else:
        tree = {"recipe": file.stem} | read_yaml(file)
    own, rest = parted(overrides)
    given = [text.partition("=")[0] for text in rest]
    faults = [f"{key}: a trial has what the study's {_INSTEAD[key]} says"
              for key in given if key in _INSTEAD and key != "seed"]  # fmt: skip
    study: StudyConfig | None = None
    train: TrainConfig | None = None
    try:
        study = validate(StudyConfig, tree, own)
    except ConfigError as error:
        faults.append(str(error))
    try:
        imposed = _imposed(study) if study else []
        train = resolve(recipe=study.train if study else None, overrides=[*rest, *imposed])
    except ConfigError as error:
        faults.append(str(error))
    if study and train:
        faults += _space_faults(study, rest)
    if faults or study is None or train is None:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return study, train


def parted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the study, and those of the training."""
    own = [text for text in overrides if text.partition("=")[0].split(".")[0] in _OWN]
    return own, [text for text in overrides if text not in own]


_OWN = frozenset(StudyConfig.model_fields) - {"seed", "recipe"}
"""`seed=` is the training's; a study's own is set in its file."""
READING = (
    "data.max_length", "data.wide_length", "data.keep_head", "data.extras", "model.name",
)  # fmt: skip
"""Keys that decide how a mail is read; for each of their values there is a token cache."""
_INSTEAD = {
    "seed": "seeds",
    "scaling.workers": "resources.workers",
    "scaling.cpus": "resources.cpus",
    "scaling.gpu": "resources.gpus",
}


def _imposed(study: StudyConfig) -> list[str]:
    """What the study decides of its trials' training."""
    each = study.resources
    return [
        f"scaling.workers={each.workers}",
        f"scaling.cpus={each.cpus}",
        f"scaling.gpu={str(each.gpus > 0).lower()}",
        # A population's members stop only together.
        *(["optimizer.patience=999999"] if study.searcher == "pbt" else []),
    ]


def _space_faults(study: StudyConfig, overrides: Sequence[str]) -> list[str]:
    """What the training config says to each key's values, one key at a time."""
    faults = []
    for key, axis in study.space.items():
        if key in _INSTEAD:
            faults.append(f"space: {key} cannot be searched; {_INSTEAD[key]} is for all trials")
            continue
        if key.startswith(("data.", "tracking.")) and key not in READING:
            faults.append(f"space: {key} cannot be searched; trials could not be compared")
            continue
        if key in READING and not axis.values:
            faults.append(f"space: {key} needs a choice or grid: each value has its own tokens")
            continue
        given = [*overrides, *_imposed(study)]
        given += [override(*item) for item in axis.when.items()]
        for value in axis.examples:
            try:
                resolve(recipe=study.train, overrides=[*given, override(key, value)])
            except ConfigError as error:
                faults += [f"space: {line}" for line in str(error).splitlines()]
    return faults
