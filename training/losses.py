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

    Weights multiply the loss of a mail and nothing divides by them, so that the mean over a
    global batch is the same however workers slice it; `balanced` weights are 1 on average.
    """

    def __init__(self, config: OptimizerConfig, shape: HeadShape, counts: np.ndarray) -> None:
        """`counts` is int64 [labels], the training mails of each label.

        Raises:
            ConfigError: `optimizer.class_weights` does not fit the labels or their counts.
        """
        self.config = config
        self.sigmoid = shape.kind == "sigmoid"
        self.weights = _weights(config, shape.labels, counts)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each mail, float32 [mails].

        `logits` is float32 [mails, labels], or [mails, 1] of a sigmoid head, whose loss is that of
        the two logits 0 and z; `labels` is int64 [mails], on the same device.
        """
        if self.weights is not None:
            self.weights = self.weights.to(logits.device)
        smoothing = self.config.label_smoothing
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
        if self.config.loss == "focal":
            # At p = 1 the slope of (1 - p)^gamma is infinite for a gamma below 1, and 0 * inf NaN.
            missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
            terms = terms * missing**self.config.focal_gamma
        return terms.sum(1)


def _weights(config: OptimizerConfig, labels: int, counts: np.ndarray) -> Tensor | None:
    """The weight of each label, float32 [labels], None where all are 1.

    `balanced` is scikit-learn's `compute_class_weight`, mails / (labels * count): its mean over
    the training mails is 1.
    """
    given = config.class_weights
    if given == "none":
        return None
    if given == "balanced":
        if not counts.all():
            raise ConfigError(
                "optimizer.class_weights: balanced needs training mails of each label, "
                f"got {counts.tolist()}; use none or a list"
            )
        return torch.from_numpy((counts.sum() / (labels * counts)).astype(np.float32))
    if len(given) != labels:
        raise ConfigError(
            f"optimizer.class_weights must be one for each of the {labels} labels, got {len(given)}"
        )
    return torch.tensor(given, dtype=torch.float32)
