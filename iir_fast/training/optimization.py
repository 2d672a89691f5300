"""Optimizer and learning-rate schedule of a training run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from iir_fast.training.config import TrainConfig

RISE = 0.2
"""Share of training in which the one-cycle schedule rises to its peak."""


def create_optimizer(
    config: TrainConfig, backbone: Iterable[nn.Parameter], rest: Iterable[nn.Parameter], fused: bool = False
) -> Optimizer:
    """The optimizer that a configuration names, as timm knows it ("sgd" is SGD with Nesterov momentum).

    Weight decay is on all parameters, as in the usual recipes of the field. Parameters that need no gradient are left
    out.

    Args:
        config: `optimizer`, `learning_rate`, `head_rate`, `weight_decay`, `momentum`.
        backbone: parameters that learn at `learning_rate`.
        rest: parameters that learn at `head_rate` times that.
        fused: update all parameters in one kernel, where the optimizer can: torch's can, timm's LARS and LAMB cannot.
    """
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.requires_grad],
            "lr": config.learning_rate * rate,
        }
        for parameters, rate in ((backbone, 1.0), (rest, config.head_rate))
    ]
    kind = get_optimizer_class(config.optimizer, bind_defaults=False)
    can_fuse = "fused" in inspect.signature(kind).parameters
    options: dict[str, Any] = {"fused": True} if fused and can_fuse else {}
    return create_optimizer_v2(
        [group for group in groups if group["params"]],
        config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        filter_bias_and_bn=False,
        **options,
    )


def create_schedule(config: TrainConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """The schedule that a configuration names; it advances with every step of the optimizer.

    - "one_cycle": up to the peak in a fifth of training and down again (Smith and Topin, "Super-Convergence", 2017),
      with beta1 moving the other way where the optimizer has one;
    - "step": times `decay_factor` every `decay_epochs`;
    - "cosine": down to 0 along half a cosine (Loshchilov and Hutter, "SGDR", ICLR 2017).

    The last two start with `warmup_epochs` of linear warm-up (Goyal et al., "Accurate, Large Minibatch SGD", 2017).

    Args:
        config: the options above and `epochs`.
        optimizer: its groups keep the ratio of their learning rates.
        steps_per_epoch: of the optimizer.
    """
    steps, warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=steps + 1,
            pct_start=RISE,
            cycle_momentum="betas" in optimizer.defaults,
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.decay_epochs:
            return config.decay_factor ** (step // (config.decay_epochs * steps_per_epoch))
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return LambdaLR(optimizer, factor)
