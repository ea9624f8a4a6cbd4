"""The training loss of each mail: cross-entropy or focal, label smoothing, weights of labels.

loss = Loss(config.optimizer, model.shape, counts)
loss(logits, labels).sum() / mails
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.config import OptimizerConfig
from training.model import HeadShape
from training.schema import ConfigError


class Loss:
    """The loss of a head.

    Where a mail may have several labels, it is the mean over labels of the binary cross-entropy.
    Weights multiply the loss of a mail and nothing divides by them, so that the mean over a
    global batch is the same however workers slice it; `balanced` weights are 1 on average.
    """

    def __init__(
        self, config: OptimizerConfig, shape: HeadShape, counts: np.ndarray, mails: int
    ) -> None:
        """`counts` is int64 [labels], the training mails of each label, `mails` those of all.

        Raises:
            ConfigError: `optimizer.class_weights` does not fit the labels or their counts.
        """
        self.config = config
        self.sigmoid, self.multi = shape.kind == "sigmoid", shape.multi
        self.weights = _weights(config, shape, counts, mails)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each mail, float32 [mails].

        `logits` is float32 [mails, labels], or [mails, 1] of a sigmoid head, whose loss is that of
        the two logits 0 and z; `labels` is int64 [mails], codes of `training.labels`, on the same
        device.
        """
        if self.weights is not None:
            self.weights = self.weights.to(logits.device)
        smoothing = self.config.label_smoothing
        if self.multi:
            return self._of_each(logits, labels)
        if self.config.loss == "focal" or (self.sigmoid and self.weights is not None):
            return self._general(logits, labels)
        if self.sigmoid:
            targets = labels.float() * (1 - smoothing) + smoothing / 2
            return functional.binary_cross_entropy_with_logits(
                logits.squeeze(1), targets, reduction="none"
            )
        return functional.cross_entropy(
            logits, labels, self.weights, reduction="none", label_smoothing=smoothing
        )

    def _general(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over labels of -target * weight * (1 - p)^gamma * log p, all options at once.

        Lin et al. 2017 (focal loss, eq. 5) with targets smoothed as in Szegedy et al. 2016 (7).
        """
        if self.sigmoid:
            log_p = functional.logsigmoid(torch.cat([-logits, logits], 1))
        else:
            log_p = functional.log_softmax(logits, 1)
        count, smoothing = log_p.shape[1], self.config.label_smoothing
        targets = functional.one_hot(labels, count) * (1 - smoothing) + smoothing / count
        terms = -targets * log_p
        if self.weights is not None:
            terms = terms * self.weights
        return self._focused(terms, log_p).sum(1)

    def _of_each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of each label; a weight multiplies the term of those that have it.

        So does `pos_weight` of `torch.nn.BCEWithLogitsLoss`.
        """
        smoothing = self.config.label_smoothing
        bits = labels[:, None] >> torch.arange(logits.shape[1], device=labels.device) & 1
        targets = bits * (1 - smoothing) + smoothing / 2
        log_yes, log_no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        yes, no = -targets * log_yes, (targets - 1) * log_no
        if self.weights is not None:
            yes = yes * self.weights
        return (self._focused(yes, log_yes) + self._focused(no, log_no)).mean(1)

    def _focused(self, terms: Tensor, log_p: Tensor) -> Tensor:
        """The terms, of a focal loss times (1 - p)^gamma."""
        if self.config.loss != "focal":
            return terms
        # At p = 1 the slope of (1 - p)^gamma is infinite for a gamma below 1, and 0 * inf NaN.
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return terms * missing**self.config.focal_gamma


def _weights(
    config: OptimizerConfig, shape: HeadShape, counts: np.ndarray, mails: int
) -> Tensor | None:
    """The weight of each label, float32 [labels], None where all are 1.

    `balanced` is scikit-learn's `compute_class_weight`, mails / (labels * count): its mean over
    the training mails is 1. Where a mail may have several labels it is (mails - count) / count.
    """
    given = config.class_weights
    if given == "none":
        return None
    if given == "balanced":
        if not counts.all() or (shape.multi and (counts == mails).any()):
            without = ", and some without it" if shape.multi else ""
            raise ConfigError(
                f"optimizer.class_weights: balanced needs training mails of each label{without}, "
                f"got {counts.tolist()} of {mails}; use none or a list"
            )
        weights = (mails - counts) / counts if shape.multi else mails / (shape.labels * counts)
        return torch.from_numpy(weights.astype(np.float32))
    if len(given) != shape.labels:
        raise ConfigError(
            f"optimizer.class_weights must be one for each of the {shape.labels} labels, "
            f"got {len(given)}"
        )
    return torch.tensor(given, dtype=torch.float32)
