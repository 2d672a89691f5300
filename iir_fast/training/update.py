"""One update of the weights: precision, accumulation, ranks, and what happens when a number is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iir_fast.gather import gather_rows
from iir_fast.methods import BatchLoss, Learner
from iir_fast.training.config import TrainConfig
from iir_fast.training.loading import Batch
from iir_fast.training.optimization import create_optimizer, create_schedule
from iir_fast.training.ranks import Ranks

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class UpdateRecord(NamedTuple):
    """What one update was like."""

    terms: dict[str, Tensor]
    """Scalars without gradient, by name: the total loss, what it is made of, the accuracy."""
    gradient_norm: Tensor | None
    """L2 norm of all gradients, before they were clipped; None where nobody asked for it or there are none."""
    non_finite: str | None
    """Which term of the loss was not finite on this rank, or "another rank's"; then nothing was updated."""
    overflowed: bool
    """fp16 gradients overflowed: nothing was updated, and the scale was lowered."""


class Updater:
    """Updates a network on its device, batch after batch; its state belongs to the checkpoint.

    Attributes:
        average: the moving average of the network; None where none is kept.
        overflows: updates that were left out because fp16 gradients overflowed.
        non_finite: updates that were left out because the loss was not finite.
    """

    def __init__(self, config: TrainConfig, learner: Learner, ranks: Ranks, updates_per_epoch: int) -> None:
        self.execution, self.clip, self.ranks = config.execution, config.optimization.clip, ranks
        model = self.model = learner.model
        self.networks = learner.networks
        self.device = model.head.weight.device
        if self.execution.compile:
            # The head's operators are fused already.
            model.backbone.compile()
        self._learner: nn.Module = learner
        if ranks.size > 1:
            self._learner = DistributedDataParallel(
                self._learner,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                # A method need not use every parameter, such as those of a learned threshold.
                find_unused_parameters=True,
                # Gradients lie where they are sent from, in place of twice.
                gradient_as_bucket_view=True,
            )
        rest = (*model.head.parameters(), *self.networks.parameters())
        on_gpu = self.device.type == "cuda"
        self.optimizer = create_optimizer(config.optimization, model.backbone.parameters(), rest, fused=on_gpu)
        self.schedule = create_schedule(config.optimization, self.optimizer, updates_per_epoch)
        self._parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.execution.precision == "fp16")
        self.average: AveragedModel | None = None
        if (decay := config.optimization.ema_decay) is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.overflows = self.non_finite = 0

    def update(self, batches: Sequence[Batch], wants_norm: bool = False) -> UpdateRecord:
        """Make one optimizer step on the mean loss of this rank's batches; the gradients' norm is measured if they are
        clipped or it is wanted."""
        self.optimizer.zero_grad(set_to_none=True)
        results: list[BatchLoss] = []
        for number, batch in enumerate(batches, 1):
            with torch.autograd.set_detect_anomaly(self.execution.detect_anomaly), self._synchronized(number, batches):
                result = self._forward(batch)
                if (fault := self._find_fault(result)) is not None:
                    self.non_finite += 1
                    return UpdateRecord(result.terms, None, fault, False)
                self._scaler.scale(result.loss / len(batches)).backward()
            results.append(result._replace(loss=result.loss.detach()))
        norm = self._measure_and_clip(wants_norm)
        overflowed = self._step()
        for result in results:
            self.model.prototypes.update(gather_rows(result.foreground), gather_rows(result.labels))
        if self.average is not None and not overflowed:
            self.average.update_parameters(self.model)
        terms = {name: torch.stack([each.terms[name] for each in results]).mean() for name in results[0].terms}
        return UpdateRecord(terms, norm, None, overflowed)

    def _forward(self, batch: Batch) -> BatchLoss:
        layout = torch.channels_last if self.execution.channels_last else torch.contiguous_format
        on_gpu = self.device.type == "cuda"
        inputs = batch.inputs.to(self.device, non_blocking=on_gpu, memory_format=layout)
        labels = batch.labels.to(self.device, non_blocking=on_gpu)
        dtype = AUTOCAST.get(self.execution.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            result: BatchLoss = self._learner(inputs, labels)
        return result

    def _synchronized(self, number: int, batches: Sequence[Batch]) -> AbstractContextManager[None]:
        """Synchronize once per update: gradients of all ranks are added up once."""
        if isinstance(self._learner, DistributedDataParallel) and number < len(batches):
            return self._learner.no_sync()
        return nullcontext()

    def _find_fault(self, result: BatchLoss) -> str | None:
        """Find the first term that is not finite; every rank hears of one on any."""
        fault = None
        if not result.loss.detach().isfinite():
            faulty = [name for name, term in result.terms.items() if name != "total" and not term.isfinite()]
            fault = faulty[0] if faulty else "total"
        if self.ranks.all_true(fault is None, self.device):
            return None
        return fault or "another rank's"

    def _measure_and_clip(self, wants_norm: bool) -> Tensor | None:
        if not wants_norm and self.clip is None:
            return None
        self._scaler.unscale_(self.optimizer)
        return torch.nn.utils.clip_grad_norm_(self._parameters, self.clip or float("inf"))

    def _step(self) -> bool:
        """Step, and tell whether fp16 gradients overflowed, on any rank and so on all."""
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        overflowed = self._scaler.get_scale() < scale
        if overflowed:
            self.overflows += 1
        else:
            self.schedule.step()
        return overflowed

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the network and its average: tensors and plain values."""
        return {
            "method": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "overflows": self.overflows,
            "non_finite": self.non_finite,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.networks.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.n_averaged.fill_(state["averaged"])
        self.overflows, self.non_finite = state["overflows"], state["non_finite"]
