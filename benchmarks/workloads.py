"""What is timed: inputs of a given shape, and the contenders that compute the same of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers
from iir_fast import DualCAMHead, IIRLoss, functional

PACKAGE = "package"
STEP = "step"
OPERATORS = ("label_cam", "regulate", "masked_pool", "subgroup_similarity", "evidence_map")
CONTENDERS = {
    PACKAGE: "iir_fast",
    "naive": "class maps and masked features, eager",
    "naive_compiled": "naive under torch.compile",
    "batched": "label CAMs and batched products, eager",
    "batched_compiled": "batched under torch.compile",
}
MAPS = {"VGG16": (512, 28), "ResNet-50 stride 16": (2048, 14), "ResNet-50": (2048, 7), "Inception-v3": (2048, 12)}
IMAGES_PER_CLASS = 4
DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float64: "fp64"}


def title(contender: str) -> str:
    """Name a contender in tables and plots: the package by its name, a peer by its key."""
    return CONTENDERS[PACKAGE] if contender == PACKAGE else contender


@dataclass(frozen=True)
class Shape:
    """Features [batch, channels, side, side] in a dtype and layout, and the number of classes."""

    channels: int
    side: int
    batch: int
    classes: int
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @property
    def feature_bytes(self) -> int:
        return self.batch * self.channels * self.side**2 * self.dtype.itemsize

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "NCHW"
        size = f"{self.side}x{self.side} C{self.channels} B{self.batch} K{self.classes}"
        return f"{size} {DTYPE_NAMES[self.dtype]} {layout}"

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**asdict(self), "dtype": DTYPE_NAMES[self.dtype], "feature_bytes": self.feature_bytes}


ALL_PEERS, EAGER_PEERS = ("naive", "batched", "naive_compiled", "batched_compiled"), ("naive", "batched")
FORMATS = list(product((torch.float32, torch.bfloat16), (False, True)))
TINY_SHAPES = [Shape(32, 6, 8, 5), Shape(32, 6, 8, 5, torch.bfloat16, True)]


def step_cases(device: str) -> list[tuple[Shape, tuple[str, ...]]]:
    """Shapes of the step with the peers that compete on each.

    All maps, dtypes and layouts at both numbers of classes; the other batches with 1000 classes in NCHW only. Peers
    under torch.compile, a minute of compiling per shape, run where everything is as usual: fp32, NCHW, 1000 classes.
    """
    main, others = (32, [8]) if device == "cpu" else (64, [8, 256])
    cases: list[tuple[Shape, tuple[str, ...]]] = []
    for size in MAPS.values():
        for classes, (dtype, channels_last) in product((1000, 200), FORMATS):
            usual = (classes, dtype, channels_last) == (1000, torch.float32, False)
            cases.append((Shape(*size, main, classes, dtype, channels_last), ALL_PEERS if usual else EAGER_PEERS))
    for size, batch, dtype in product(MAPS.values(), others, (torch.float32, torch.bfloat16)):
        cases.append((Shape(*size, batch, 1000, dtype), EAGER_PEERS))
    return cases


def operator_cases(device: str) -> list[tuple[str, Shape]]:
    """Every operator on every map, dtype and layout that it can tell apart."""
    batch = 32 if device == "cpu" else 64
    shapes = [Shape(*size, batch, 1000, *kind) for size, kind in product(MAPS.values(), FORMATS)]
    on_features = [(name, shape) for name in ("label_cam", "masked_pool", "evidence_map") for shape in shapes]
    by_side = {shape.side: shape for shape in reversed(shapes)}.values()
    by_channels = {shape.channels: shape for shape in reversed(shapes)}.values()
    return [
        *on_features,
        *(("regulate", shape) for shape in by_side),
        *(("subgroup_similarity", shape) for shape in by_channels),
    ]


Forward = Callable[..., tuple[Tensor, ...]]


@dataclass
class Workload:
    """One computation, forward and backward, that every contender does on the same inputs."""

    inputs: tuple[Tensor, ...]
    """Leaves; those that require a gradient get one."""
    contenders: dict[str, Forward]
    """Each returns the package's outputs. What a peer returns besides is alive during the backward pass."""
    least_bytes: int
    """Bytes that must be moved: inputs once forward and once backward, results once."""
    features: Tensor | None = None
    """The map among the inputs."""
    has_extrema: bool = False
    """Whether gradients go to the extreme pixels of a map, which bf16 finds elsewhere than fp32."""
    cotangents: tuple[Tensor, ...] = field(init=False)
    """Gradients of the outputs; none for inference."""

    def __post_init__(self) -> None:
        with torch.no_grad():
            outputs = self.contenders[PACKAGE](*self.inputs)
        random = torch.Generator().manual_seed(9)
        differentiable = any(each.requires_grad for each in self.inputs)
        self.cotangents = tuple(
            torch.ones_like(each) if each.dim() == 0 else torch.randn(each.shape, generator=random).to(each)
            for each in outputs
            if differentiable
        )

    def clear(self) -> None:
        """Forget the gradients."""
        for each in self.inputs:
            each.grad = None

    def run(self, contender: str) -> tuple[Tensor, ...]:
        """Forward and backward; gradients stay in the inputs."""
        if not self.cotangents:
            with torch.no_grad():
                return self.contenders[contender](*self.inputs)
        outputs = self.contenders[contender](*self.inputs)
        count = len(self.cotangents)
        torch.autograd.backward(outputs[:count], self.cotangents)
        return tuple(output.detach() for output in outputs[:count])


def missing_compiler(device: str) -> str | None:
    """Why torch.compile cannot work here; None when it can. On the CPU it needs a C++ compiler."""
    if device == "cpu" and sys.platform != "win32" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "torch.compile needs a C++ compiler (g++ or clang++), and there is none"
    return None


def make(what: str, shape: Shape, device: str, compiler: str | None = None) -> Workload:
    """The workload of the whole step or of one operator.

    Args:
        what: "step" or the name of an operator.
        shape: of the features.
        device: "cpu" or "cuda".
        compiler: torch.compile's backend for the step's peers under it; None: they do not compete.

    Raises:
        ValueError: `what` is none of these.
    """
    if what == STEP:
        return _step(shape, device, compiler)
    if what not in OPERATORS:
        raise ValueError(f"make: what is {what!r}; accepted are {STEP}, {', '.join(OPERATORS)}.")
    return _operator(what, shape, device)


def _step(shape: Shape, device: str, compiler: str | None) -> Workload:
    features, labels = make_features(shape, device).requires_grad_(), make_labels(shape, device)
    # CAMs are plain ones, as the peers make them.
    head = DualCAMHead(shape.channels, shape.classes, hidden=None, class_mean=1.0).to(device)
    regulation = IIRLoss()
    if shape.dtype == torch.float64:
        head = head.double()
    with torch.no_grad():
        head.weight.copy_(_random(shape, device, 2, shape.classes, shape.channels, seed=1) / shape.channels**0.5)
        head.bias.zero_()

    def package(features: Tensor, weights: Tensor, biases: Tensor, labels: Tensor) -> tuple[Tensor]:
        # Weights and biases are the head's own.
        out = head(features, labels)
        loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
        return (loss + regulation(out),)

    contenders: dict[str, Forward] = {
        PACKAGE: package,
        "naive": peers.step_with_class_maps,
        "batched": _one(peers.step_with_contractions),
    }
    if compiler is not None:
        # Shapes must not be taken for variations of one.
        torch.compiler.reset()
        contenders["naive_compiled"] = torch.compile(
            contenders["naive"], fullgraph=True, dynamic=False, backend=compiler
        )
        contenders["batched_compiled"] = torch.compile(
            contenders["batched"], fullgraph=True, dynamic=False, backend=compiler
        )
    pixels = shape.batch * shape.side**2
    # F four times, its gradient once; weights for the logits there and back, their gradient; CAMs and masks likewise.
    least = 5 * features.nbytes + 3 * head.weight.nbytes + 6 * 2 * pixels * 4
    return Workload((features, head.weight, head.bias, labels), contenders, least, features, has_extrema=True)


def _operator(what: str, shape: Shape, device: str) -> Workload:
    batch, channels, side = shape.batch, shape.channels, shape.side
    labels = make_labels(shape, device)
    features: Tensor | None = None
    inputs: tuple[Tensor, ...]
    package: Forward
    peer: Forward
    if what == "label_cam":
        features = make_features(shape, device).requires_grad_()
        weights = _random(shape, device, 2, shape.classes, channels, seed=1).requires_grad_()
        inputs, package, peer = (features, weights, labels), functional.label_cam, peers.label_cam
        least = 3 * features.nbytes + weights.nbytes + 2 * 2 * batch * side**2 * weights.itemsize
    elif what == "regulate":
        cam_a, cam_b = _random(shape, device, batch, 2, side, side, seed=2).unbind(1)
        inputs = (cam_a.contiguous().requires_grad_(), cam_b.contiguous().requires_grad_())
        package, peer = (lambda *cams: functional.regulate(*cams)[:2]), peers.regulate
        least = 8 * cam_a.nbytes + 2 * cam_a.nbytes
    elif what == "masked_pool":
        features = make_features(shape, device).requires_grad_()
        masks = torch.sigmoid(_random(shape, device, batch, 2, side, side, seed=4)).requires_grad_()
        inputs, package, peer = (features, masks), functional.masked_pool, peers.masked_pool
        least = 3 * features.nbytes + 3 * masks.nbytes
    elif what == "subgroup_similarity":
        foreground, background = (_random(shape, device, 2 * batch, channels, seed=seed) for seed in (5, 6))
        groups = labels.repeat_interleave(2)
        inputs = (foreground.requires_grad_(), background.requires_grad_(), groups)
        package, peer = _one(functional.subgroup_similarity), _one(peers.subgroup_similarity)
        least = 6 * foreground.nbytes
    else:
        features = make_features(shape, device)
        inputs = (features, _random(shape, device, batch, 1, channels, seed=7))
        package, peer = _one(functional.evidence_map), _one(peers.evidence_map)
        least = features.nbytes + batch * side**2 * 4
    return Workload(inputs, {PACKAGE: package, "batched": peer}, least, features)


def _one(function: Callable[..., Tensor]) -> Forward:
    return lambda *inputs: (function(*inputs),)


def _random(shape: Shape, device: str, *size: int, seed: int = 0) -> Tensor:
    """Normally distributed, in the dtype of everything but the features: float32 unless those are wider."""
    wide = torch.promote_types(shape.dtype, torch.float32)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=wide).to(device)


def make_features(shape: Shape, device: str, seed: int = 0) -> Tensor:
    """[B,C,H,W] as a ReLU leaves them, in the shape's dtype and layout."""
    size = (shape.batch, shape.channels, shape.side, shape.side)
    features = _random(shape, device, *size, seed=seed).relu_().to(shape.dtype)
    return features.contiguous(memory_format=torch.channels_last) if shape.channels_last else features


def make_labels(shape: Shape, device: str) -> Tensor:
    """int64 [B], `IMAGES_PER_CLASS` of each class in a row."""
    return (torch.arange(shape.batch) // IMAGES_PER_CLASS % shape.classes).to(device)
