"""How much memory a training step takes on each device, counted from shapes alone.

The step runs once on fake tensors, which have sizes and no memory: neither weights nor a GPU are needed, and it takes
about a second. Every tensor that PyTorch would make is counted from the operator that makes it to its last reference,
forward and backward, under autocast as in training. Not counted are the device's context and libraries, what operators
allocate for themselves while they run (workspaces of cuDNN, partial sums of kernels), what the allocator loses to
fragments, and the optimizer's temporaries, which come when the activations are gone. Leave a tenth of the device free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from iir_fast.app.files import in_short
from iir_fast.kernels.dual_cam import native as dual_cam
from iir_fast.kernels.inter_intra import native as inter_intra
from iir_fast.models import IIRNetwork
from iir_fast.planning.live_memory import LiveMemory
from iir_fast.planning.steps import Step, step_with_kernels, step_without_kernels

Precision = Literal["fp32", "bf16", "fp16"]
SEEN: Mapping[str, Callable[..., Any]] = {
    "dual_cam": dual_cam.forward,
    "dual_cam_backward": dual_cam.backward,
    "inter_intra": inter_intra.forward,
    "inter_intra_backward": inter_intra.backward,
}
"""Operators whose own memory is counted."""
OptimizerName = Literal["sgd", "adamw", "lars", "lamb"]
MOMENTS: dict[OptimizerName, int] = {"sgd": 1, "adamw": 2, "lars": 1, "lamb": 2}
"""Tensors as large as the parameters that an optimizer keeps: momentum, and second moments."""
LOWERED: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
GIB = 2**30
"""Bytes of a GiB."""


@dataclass(frozen=True)
class TrainingSetup:
    """What decides the memory of a training step, but for the batch."""

    backbone: str
    """"small_cnn" or the name of a timm model."""
    image_size: int = 224
    """Side of the square input in pixels."""
    output_stride: int | None = None
    """Stride of the feature map in pixels; the architecture's own by default."""
    out_index: int | None = None
    """Which of the backbone's feature maps is read; by default as in `iir_fast.models.create_backbone`."""
    classes: int = 1000
    """Number of classes."""
    hidden: int | None = 512
    """Channels of each classifier's own 3x3 convolution; None: classifiers read the shared map."""
    precision: Precision = "bf16"
    """fp32, or autocast to bf16 or fp16; parameters, gradients and optimizer state are float32 in any case."""
    optimizer: OptimizerName = "sgd"
    """sgd and lars keep a momentum, adamw and lamb two moments."""
    ranks: int = 1
    """Processes that compare the images of all their batches with each other; a plan is for one of them."""

    def __post_init__(self) -> None:
        for name in ("image_size", "classes", "ranks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted is 1 or more.")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device at the peak of a training step.

    Attributes:
        batch: images per device.
        parameters: of backbone and head, with their buffers.
        gradients: of all parameters.
        optimizer: what the optimizer keeps from step to step.
        activations: what stays of the backbone's forward pass for the backward one; images and features are part of it.
        head_and_loss: the most that head and loss hold beyond that, forward and backward, with this package's
            kernels. The gradient of the features is part of it.
        head_and_loss_without: the same of class maps, masked features and differences of all pairs of images, those of
            this device alone; the naive peer of the benchmarks.
        backbone_backward: the most that the backbone's backward pass holds beyond the activations. It comes when head
            and loss are done: of the two the larger one counts.
    """

    batch: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    head_and_loss: int
    head_and_loss_without: int
    backbone_backward: int

    @property
    def total(self) -> int:
        """Peak with this package's kernels."""
        return self._total(self.head_and_loss)

    @property
    def total_without(self) -> int:
        """Peak without them."""
        return self._total(self.head_and_loss_without)

    def _total(self, head_and_loss: int) -> int:
        held = self.parameters + self.gradients + self.optimizer + self.activations
        return held + max(head_and_loss, self.backbone_backward)

    def to_dict(self) -> dict[str, int]:
        """Return all figures in bytes, the totals among them."""
        return {**asdict(self), "total": self.total, "total_without": self.total_without}


def plan(setup: TrainingSetup, batch: int) -> MemoryPlan:
    """Count the memory of a training step.

    Args:
        setup: what is trained, and how.
        batch: images per device.

    Returns:
        Bytes per device, by what takes them.

    Raises:
        ValueError: `batch` is below 1, or the backbone is unknown or cannot have that stride or image size.
    """
    with _laid_out(setup):
        return _Counter(setup).plan(batch)


class LargestBatch(NamedTuple):
    """Images per device whose plan fits; 0 if not even one does."""

    with_kernels: int
    without_kernels: int


def largest_batch(setup: TrainingSetup, memory: int) -> LargestBatch:
    """Find the largest batch per device that fits, with this package's kernels and without.

    Args:
        setup: what is trained, and how.
        memory: bytes that the step may take.

    Returns:
        Images per device.

    Raises:
        ValueError: as `plan` says.
    """
    with _laid_out(setup):
        # One plan serves both searches, however often they ask for it.
        count = cache(_Counter(setup).plan)
        return LargestBatch(
            _largest(memory, lambda batch: count(batch).total),
            _largest(memory, lambda batch: count(batch).total_without),
        )


@contextmanager
def _laid_out(setup: TrainingSetup) -> Iterator[None]:
    """Say in a sentence where torch has no tensors of such sizes, not even fake ones."""
    try:
        yield
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"no step can be laid out of {setup}: {in_short(error)}") from error


def _largest(memory: int, total: Callable[[int], int]) -> int:
    """Find the largest number that is at least 1 and whose total, which grows with it, is at most `memory`; or 0."""
    if total(1) > memory:
        return 0
    # Memory grows nearly linearly: a line through two batches leads next to the place, in a few steps.
    low, high = 1, 16
    while total(high) <= memory:
        per_image = (total(high) - total(low)) // (high - low)
        low, high = high, high + (memory - total(high)) // per_image + 1
    while high - low > 1:
        between = low + (memory - total(low)) * (high - low) // (total(high) - total(low))
        between = min(max(between, low + 1), high - 1)
        low, high = (between, high) if total(between) <= memory else (low, between)
    return low


def tabulate(plans: Iterable[MemoryPlan]) -> str:
    """Make a table with one row per plan, in GiB.

    Args:
        plans: one or more.

    Returns:
        Markdown.
    """
    columns = {
        "parameters": "parameters",
        "gradients": "gradients",
        "optimizer": "optimizer",
        "activations": "activations",
        "backbone_backward": "backbone's backward",
        "head_and_loss": "head and loss",
        "total": "total",
        "head_and_loss_without": "head and loss without kernels",
        "total_without": "total without kernels",
    }
    rows = [["batch", *columns.values()], ["---:"] * (len(columns) + 1)]
    for each in plans:
        sizes = each.to_dict()
        rows.append([str(each.batch), *(f"{sizes[name] / GIB:.2f}" for name in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class _Counter:
    """The model of a setup on fake tensors, to be counted at any batch."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup
        with torch.device("meta"):
            model = IIRNetwork(
                setup.backbone,
                setup.classes,
                output_stride=setup.output_stride,
                out_index=setup.out_index,
                hidden=setup.hidden,
                threshold="mean",  # what a learned one takes is kilobytes
            )
            try:
                with torch.no_grad():
                    model.backbone(torch.empty(2, 3, setup.image_size, setup.image_size))
            except RuntimeError as error:
                size, name = setup.image_size, setup.backbone
                raise ValueError(f"image_size is {size}; {name} cannot read it: {error}") from error
        # Fake tensors of the CPU: those of a GPU go backward only where there is one, and meta ones know no autocast.
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self._fake:
            self.model = model.to_empty(device="cpu")

    def plan(self, batch: int) -> MemoryPlan:
        if batch < 1:
            raise ValueError(f"batch is {batch}; accepted is 1 or more.")
        setup, head = self.setup, self.model.head
        parameters = _bytes(self.model.parameters())
        with self._fake:
            features, activations, backbone_backward = self._count_backbone(batch)
            with_kernels = self._count_head(features, partial(step_with_kernels, head, ranks=setup.ranks))
            without = self._count_head(features, partial(step_without_kernels, head))
        return MemoryPlan(
            batch=batch,
            parameters=parameters + _bytes(self.model.buffers()),
            gradients=parameters,
            optimizer=MOMENTS[setup.optimizer] * parameters,
            activations=activations,
            head_and_loss=with_kernels,
            head_and_loss_without=without,
            backbone_backward=backbone_backward,
        )

    def _count_backbone(self, batch: int) -> tuple[Tensor, int, int]:
        """Count features; what stays for the backward pass; the most that this one holds beyond that."""
        backbone, size = self.model.backbone, self.setup.image_size
        live = LiveMemory(_tensors(backbone))
        with live, _settled_gradients(backbone, live):
            images = torch.empty(batch, 3, size, size)
            with self._autocast():
                features: Tensor = backbone(images)
            activations = live.now
            live.forget_peak()
            # In place of the sum's: a dense gradient that autograd alone refers to, as that of head and loss.
            features.register_hook(torch.empty_like)
            features.sum().backward()
        return features.detach(), activations, live.peak - activations

    def _count_head(self, features: Tensor, step: Callable[[Tensor, Tensor], Step]) -> int:
        """Count the most that head and loss hold, but for the gradients of the head's parameters."""
        head, features = self.model.head, features.requires_grad_()
        live = LiveMemory([*_tensors(head), features], seen=SEEN)
        with live:
            labels = torch.zeros(len(features), dtype=torch.int64)
            with self._autocast():
                loss, _kept = step(features, labels)
            loss.backward()
        features.grad = None
        head.zero_grad()
        # They are there when the pass ends; a plan has them among all gradients.
        return live.peak - _bytes(head.parameters())

    def _autocast(self) -> torch.autocast:
        dtype = LOWERED.get(self.setup.precision)
        return torch.autocast("cpu", dtype, enabled=dtype is not None)


@contextmanager
def _settled_gradients(module: nn.Module, live: LiveMemory) -> Iterator[None]:
    """Count a parameter's gradient while it is made and no longer; gone afterwards."""
    with ExitStack() as ending:
        ending.callback(module.zero_grad)
        for each in module.parameters():
            forget = each.register_post_accumulate_grad_hook(lambda parameter: live.forget(parameter.grad))
            ending.enter_context(forget)
        yield


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.nbytes for each in tensors)
