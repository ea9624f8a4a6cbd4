"""The optimizer: AdamW, the learning rate of each layer, and how it goes over the steps.

optimizer, schedule = make_optimizer(model, config.optimizer, steps)
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from training.config import OptimizerConfig
from training.model import MailModel, bert_layers


def make_optimizer(model: MailModel, config: OptimizerConfig, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW over the parameters that are trained, and its schedule over `steps` steps.

    Matrices have weight decay, biases and norms none, as in BERT's `optimization.py`.
    The first group has the full learning rate: it is `get_last_lr()[0]`.

    Raises:
        ConfigError: there is layer decay and the encoder is not built as BERT is.
    """
    groups: list[dict[str, Any]] = []
    wide = [] if model.wide is None else [model.wide.weights]
    if config.layer_decay == 1:
        beside = {id(parameter) for parameter in wide}
        groups += _groups([p for p in model.parameters() if id(p) not in beside], config)
    else:
        for height, parameters in enumerate(_from_the_top(model)):
            rate = config.lr * config.layer_decay**height
            layer = _groups(parameters, config)
            groups += [group | {"lr": rate} for group in layer if group["params"]]
    if wide:
        groups.append({"params": wide, "weight_decay": 0.0, "lr": config.wide_lr})
    optimizer = AdamW(groups, lr=config.lr, fused=True)
    return optimizer, LambdaLR(optimizer, _factor(config, steps))


def _groups(parameters: list[nn.Parameter], config: OptimizerConfig) -> list[dict[str, Any]]:
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _from_the_top(model: MailModel) -> list[list[nn.Parameter]]:
    """All parameters: the head and a pooler, each layer downwards, then embeddings and the rest.

    Discriminative rates are from Howard & Ruder 2018 (ULMFiT, 3.2), for BERT from Clark et al.
    2020 (ELECTRA, `_get_layer_lrs`, where the top layer is two factors below the head, not one).
    What serves all layers, as a table of relative positions, counts as an embedding.
    """
    _, layers = bert_layers(model, "optimizer.layer_decay")
    pooler = getattr(model.encoder, "pooler", None)
    head = [*model.head.parameters(), *(pooler.parameters() if pooler is not None else ())]
    heights = [head, *(list(layer.parameters()) for layer in reversed(layers))]
    beside = [] if model.wide is None else list(model.wide.parameters())
    placed = {id(parameter) for height in [*heights, beside] for parameter in height}
    return [*heights, [p for p in model.parameters() if id(p) not in placed]]


def _factor(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """What a learning rate is multiplied by at each step, from 0 to `steps`.

    After a linear warm-up: linear as in BERT; cosine is Loshchilov & Hutter 2017 (SGDR, eq. 5)
    without restarts.
    """
    warmup = max(1, round(steps * config.warmup))

    def factor(step: int) -> float:
        rise = (step + 1) / warmup
        left = (steps - step) / max(1, steps - warmup)
        if config.schedule == "constant":
            return min(rise, 1.0)
        if config.schedule == "cosine":
            return min(rise, (1 - math.cos(math.pi * min(left, 1.0))) / 2)
        return min(rise, left)

    return factor
