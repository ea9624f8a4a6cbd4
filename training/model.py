"""The model: a pre-trained encoder and one linear layer on top.

Weights come from the packaged MiniLM, a local directory or a hub; `tiny` is a random BERT.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from training.attention import BLOCKED, KINDS
from training.config import ModelConfig
from training.schema import ConfigError
from training.weights import TINY, locate
from training.wide import Grams, Wide

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What stands on the encoder; part of the bundle."""

    labels: int
    pooling: Literal["mean", "cls", "pooler"]
    kind: Literal["softmax", "sigmoid"]
    dropout: float
    multi: bool = False
    """A logit, and a yes or no, for each label."""
    wide: int = 0
    """Buckets of the wide part beside it; 0 for none."""

    @property
    def logits(self) -> int:
        """How many it gives."""
        return 1 if self.kind == "sigmoid" and not self.multi else self.labels

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each label, float32 [mails, labels]."""
        if self.multi:
            return torch.sigmoid(logits)
        if self.kind == "sigmoid":
            positive = torch.sigmoid(logits.squeeze(1))
            return torch.stack([1 - positive, positive], 1)
        return torch.softmax(logits, 1)


class MailModel(nn.Module):
    """An encoder, pooled to one vector a mail, one linear layer, and maybe a wide part beside."""

    def __init__(self, encoder: nn.Module, shape: HeadShape) -> None:
        super().__init__()
        self.encoder = encoder
        self.shape = shape
        if shape.pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # type: ignore[assignment]  # unused parameters would stall DDP
        settings: Any = encoder.config
        hidden = int(settings.hidden_size)
        self.filler = int(settings.pad_token_id or 0)
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(hidden, shape.logits)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.wide = Wide(shape.wide, shape.logits) if shape.wide else None

    def forward(self, ids: Tensor, mask: Tensor | None, grams: Grams | None = None) -> Tensor:
        """Logits, float32 [mails, labels], or [mails, 1] of a sigmoid head for one of two labels.

        `ids` and `mask` are int64 [mails, tokens], padding last; a mask of None says that no token
        is padding, which spares the encoder the work on it. A model with a wide part needs `grams`.
        """
        output = self.encoder(input_ids=ids, attention_mask=mask)
        hidden: Tensor = output.last_hidden_state
        if self.shape.pooling == "pooler":
            pooled: Tensor = output.pooler_output
        elif self.shape.pooling == "cls":
            pooled = hidden[:, 0]
        elif mask is None:
            pooled = hidden.mean(1)
        else:
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        logits: Tensor = self.head(self.dropout(pooled)).float()
        if self.wide is not None:
            assert grams is not None, "a wide part reads n-grams"
            logits = logits + self.wide(grams)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each label, float32 [mails, labels]."""
        return self.shape.probabilities(logits)


def build(
    config: ModelConfig, labels: int, max_length: int, *, multi: bool = False, wide: bool = False
) -> MailModel:
    """The model that training starts from, on the CPU, in float32.

    `multi` is for mails that may have several labels; `wide` adds the wide part.

    Raises:
        ConfigError: there are no such weights, or they cannot read `max_length` tokens.
    """
    buckets = config.wide_buckets if wide else 0
    shape = HeadShape(labels, config.pooling, config.head, config.dropout, multi, buckets)
    kernel = "sdpa" if config.attention == "auto" else config.attention
    kwargs: dict[str, Any] = {"hidden_dropout_prob": config.dropout}
    if config.attention_dropout is not None:
        kwargs["attention_probs_dropout_prob"] = config.attention_dropout
    elif not torch.cuda.is_available():
        kwargs["attention_probs_dropout_prob"] = 0.0
    if config.name == TINY:
        settings = BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            **kwargs,
        )
        settings._attn_implementation = kernel
        encoder = AutoModel.from_config(settings)
    else:
        place = locate(config.name)
        encoder = AutoModel.from_pretrained(
            place, dtype=torch.float32, attn_implementation=kernel, **kwargs
        )
    longest = int(getattr(encoder.config, "max_position_embeddings", max_length))
    if max_length > longest:
        raise ConfigError(
            f"data.max_length: {config.name} reads at most {longest} tokens, got {max_length}"
        )
    if config.gradient_checkpointing:
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    model = MailModel(encoder, shape)
    if config.attention == "auto" and not _attention_dropout(encoder.config):
        _attend(encoder)
    _freeze(model, config.freeze)
    return model


def rebuild(settings: PreTrainedConfig, shape: HeadShape) -> MailModel:
    """The same architecture with weights yet to be loaded."""
    encoder = AutoModel.from_config(settings)
    _attend(encoder)
    return MailModel(encoder, shape)


def _attend(encoder: Any) -> None:
    """The faster kernel of a CPU, where the encoder's attention is of its kind."""
    settings = encoder.config
    plain = settings.model_type in KINDS and not getattr(settings, "is_decoder", False)
    if plain and not torch.cuda.is_available():
        encoder.set_attn_implementation(BLOCKED)


def _attention_dropout(settings: Any) -> float:
    other = getattr(settings, "attention_dropout", 0.0)  # DistilBERT's name for it
    return float(getattr(settings, "attention_probs_dropout_prob", other))


def bert_layers(model: MailModel, key: str) -> tuple[nn.Module, list[nn.Module]]:
    """The embeddings, and the layers from the lowest to the top, of a BERT-like encoder.

    Raises:
        ConfigError: it is not built as BERT is, so that the config's `key` says nothing of it.
    """
    encoder: Any = model.encoder
    embeddings = getattr(encoder, "embeddings", None)
    layers = getattr(getattr(encoder, "encoder", None), "layer", None)
    if embeddings is None or layers is None:
        raise ConfigError(f"{key}: needs the layers of a BERT, {type(encoder).__name__} has none")
    return embeddings, list(layers)


def _freeze(model: MailModel, depth: int) -> None:
    if depth == 0:
        return
    embeddings, layers = bert_layers(model, "model.freeze")
    if depth > len(layers):
        raise ConfigError(
            f"model.freeze: at most {len(layers)} here, so that a layer is left, got {depth}"
        )
    for module in [embeddings, *layers[: depth - 1]]:
        module.requires_grad_(False)
