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

from iir_fast.training.parts import Optimization

RISE = 0.2
"""Share of training in which the one-cycle schedule rises to its peak."""


def create_optimizer(
    options: Optimization, backbone: Iterable[nn.Parameter], rest: Iterable[nn.Parameter], fused: bool = False
) -> Optimizer:
    """Create the optimizer that a configuration names, as timm knows it ("sgd" is SGD with Nesterov momentum).

    Weight decay is on all parameters, as in the usual recipes of the field. Parameters that need no gradient are left
    out. Those of the backbone learn at `learning_rate`, the rest at `head_lr_mult` times that. A fused optimizer
    updates all in one kernel, where it can: torch's can, timm's LARS and LAMB cannot.
    """
    groups = [
        {"params": [each for each in parameters if each.requires_grad], "lr": options.learning_rate * rate}
        for parameters, rate in ((backbone, 1.0), (rest, options.head_lr_mult))
    ]
    kind = get_optimizer_class(options.optimizer, bind_defaults=False)
    can_fuse = "fused" in inspect.signature(kind).parameters
    extra: dict[str, Any] = {"fused": True} if fused and can_fuse else {}
    return create_optimizer_v2(
        [group for group in groups if group["params"]],
        options.optimizer,
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        filter_bias_and_bn=False,
        **extra,
    )


def create_schedule(options: Optimization, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """Create the schedule that a configuration names; it advances with every step of the optimizer.

    - "one_cycle": up to the peak in a fifth of training and down again (Smith and Topin, "Super-Convergence", 2017),
      with beta1 moving the other way where the optimizer has one;
    - "step": times `decay_factor` every `decay_epochs`;
    - "cosine": down to 0 along half a cosine (Loshchilov and Hutter, "SGDR", ICLR 2017).

    The last two start with `warmup_epochs` of linear warm-up (Goyal et al., "Accurate, Large Minibatch SGD", 2017).
    The optimizer's groups keep the ratio of their learning rates.
    """
    steps, warmup = options.epochs * steps_per_epoch, options.warmup_epochs * steps_per_epoch
    if options.schedule == "one_cycle":
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=steps + 1,
            # Of 4 steps it would end where it begins, and torch would divide by its length.
            pct_start=RISE if steps != 4 else RISE / 2,
            cycle_momentum="betas" in optimizer.defaults,
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if options.decay_epochs:
            return options.decay_factor ** (step // (options.decay_epochs * steps_per_epoch))
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return LambdaLR(optimizer, factor)
