"""The operators as a table of cases, so that every property is tested for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from iir_fast import functional
from iir_fast.kernels import backend
from iir_fast.kernels.contract import MASS_EPSILON
from iir_fast.kernels.dual_cam import DualCAMs

# Maps of 1 pixel, the sides that backbones give, odd sides and more pixels than a tile spans; odd channels and batches.
SHAPES = [(1, 1, 1, 1), (2, 17, 7, 7), (5, 33, 14, 14), (3, 5, 15, 19)]


@dataclass(frozen=True)
class Case:
    """One way to call one operator."""

    name: str
    operator: str
    call: Callable[..., tuple[Tensor, ...] | Tensor]
    make: Callable[[tuple[int, int, int, int], torch.dtype], list[Tensor]]
    """Floating arguments for (B, C, H, W); everything else is fixed by the case."""
    extra: Callable[[tuple[int, int, int, int]], list[object]] = field(default=lambda shape: [])
    """What follows the floating arguments."""
    differentiable: bool = True

    def run(self, tensors: list[Tensor], shape: tuple[int, int, int, int], name: str | None = None) -> list[Tensor]:
        """Results of the named backend, or of the one under test."""
        with backend(name) if name else nullcontext():
            out = self.call(*tensors, *self.extra(shape))
        return tree_leaves(out)

    def run_with_gradients(
        self,
        tensors: list[Tensor],
        shape: tuple[int, int, int, int],
        name: str | None = None,
        around_forward: AbstractContextManager[object] | None = None,
    ) -> list[Tensor]:
        """Results, then the gradients of their sum under fixed random weights."""
        leaves = [tensor.detach().requires_grad_(self.differentiable) for tensor in tensors]
        with around_forward or nullcontext():
            outs = self.run(leaves, shape, name)
        if not self.differentiable:
            return outs
        with backend(name) if name else nullcontext():
            gradients = torch.autograd.grad(outs, leaves, self.weights(outs))
        return [*(out.detach() for out in outs), *gradients]

    def smallest_scales(self, tensors: list[Tensor], shape: tuple[int, int, int, int]) -> list[float]:
        """What the error of each result and gradient is relative to, unless the largest of its elements is larger.

        Some gradients are what is left of terms that cancel, down to nothing: the mask's on a single pixel, that of a
        map of two pixels, which is 0 and 1 whatever these are, that of a descriptor with one channel. Rounding errors
        are of the size of the terms. A term may have 4 / tau + 3 roundings behind it, 43 with tau = 0.1: regulate's
        maps are off by 4 of them before they are divided by tau. 42 roundings are 2.5e-6 in float32, a quarter of the
        tolerance for everything else; hence a quarter of the terms.
        """
        exact = [tensor.detach().double() for tensor in tensors]
        outs = self.run(exact, shape, "reference")
        if self.operator not in TERMS:
            return [0.0] * len(outs) + [0.0] * (len(tensors) if self.differentiable else 0)
        options = self.call.keywords if isinstance(self.call, partial) else {}
        incoming = [weight.abs() for weight in self.weights(outs)]
        terms = TERMS[self.operator](exact, outs, incoming, *self.extra(shape), **options)
        return [0.0] * len(outs) + [float(each.max()) / 4 if each.numel() else 0.0 for each in terms]

    def weights(self, outs: list[Tensor]) -> list[Tensor]:
        """What each element of the results weighs in the sum that is differentiated."""
        return [_random(*out.shape, dtype=out.dtype, seed=7 + position) for position, out in enumerate(outs)]


def _random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Normal numbers, the same on every device, on the one under test."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device(), dtype)


def _labels(batch: int, classes: int) -> Tensor:
    return torch.arange(batch).mul(7).add(1) % classes


def _classifiers(channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Weights and biases of two classifiers over four classes."""
    return [_random(2, 4, channels, dtype=dtype, seed=1), _random(2, 4, dtype=dtype, seed=2)]


def _offsets(channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Weights and biases of what moves the thresholds of two maps."""
    return [_random(2, channels, dtype=dtype, seed=3) / channels**0.5, _random(2, dtype=dtype, seed=4)]


def _in_a_step(out: DualCAMs) -> tuple[Tensor, ...]:
    """All but CAMs and masks, which nothing but what is returned here depends on in a training step."""
    terms, _masks, maps, thresholds = out.regulated
    return out.logits, terms, maps, thresholds, *out.descriptors


def _images(shape: tuple[int, int, int, int]) -> int:
    """More than a batch that is small for Triton's interpreter, and none where that is empty."""
    return shape[0] * min(shape[2], 5)


def _regions(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Descriptors of two regions per image, and of their complements."""
    return [_random(_images(shape), 2, shape[1], dtype=dtype, seed=seed) for seed in (5, 6)]


def _terms_of_regulate(
    tensors: list[Tensor], outs: list[Tensor], incoming: list[Tensor], temperature: float = 0.1
) -> list[Tensor]:
    """Magnitudes in the gradient of the room's docstring, for each argument: those of 1 and s count in 1 - s."""
    _, masks, maps, cuts = outs
    grad_terms, grad_masks, grad_maps, grad_cuts = incoming
    pixels = maps[0, 0].numel()
    dual, agreement = (grad_terms / pixels).view(-1, 2, 1, 1, 1).unbind(1)
    soft = torch.sigmoid((maps - cuts[..., None, None]) / temperature)
    other_maps, other_masks = maps.flip(1), masks.flip(1)
    apart = (maps - other_maps).abs()
    h = grad_masks + dual * (other_masks * maps * other_maps + (1 - other_masks) * apart**2)
    z = (h + agreement * (1 - 2 * other_masks).abs()) * soft / temperature
    e = grad_cuts + z.sum((2, 3))
    q = grad_maps + dual * (masks * other_masks * other_maps + 2 * (1 - masks) * (1 - other_masks) * apart) + z
    if len(tensors) == 2:
        q = q + e[..., None, None] / pixels
    cams = torch.stack(tensors[:2], dim=1).flatten(2)
    span = cams.amax(2) - cams.amin(2)
    to_cams = torch.where(span > 0, 2 * q.sum((2, 3)) / span, 0)
    return [*to_cams.unbind(1), e][: len(tensors)]


def _terms_of_masked_pool(tensors: list[Tensor], outs: list[Tensor], incoming: list[Tensor]) -> list[Tensor]:
    """Of the masks' gradient: those of F and of the descriptor f, which is nearly F where a region is small."""
    features, masks = tensors
    (f, g), flat = (out.abs() for out in outs), masks.flatten(2)
    u = incoming[0] / (flat.sum(2, keepdim=True) + MASS_EPSILON)
    v = incoming[1] / ((1 - flat).sum(2, keepdim=True) + MASS_EPSILON)
    of_masks = torch.einsum("brc,bcp->brp", u + v, features.flatten(2).abs()) + (f * u + g * v).sum(2, keepdim=True)
    return [features.new_zeros(0), of_masks]


def _terms_of_subgroup_similarity(
    tensors: list[Tensor], outs: list[Tensor], incoming: list[Tensor], groups: Tensor
) -> list[Tensor]:
    """Of a descriptor's gradient, before the share along the descriptor itself is taken away, which may be all."""
    partners = (groups[:, None] == groups).sum(1, keepdim=True) - 1
    share = incoming[0] * partners / partners.sum().clamp(min=1)
    # With unit vectors: 4 r (|f| + |f|) + 2 r (|f| + |g|), and 2 r (|f| + |g|) for the background.
    return [
        factor * share / vectors.norm(dim=1, keepdim=True) for factor, vectors in zip((12, 4), tensors, strict=True)
    ]


def _terms_of_inter_intra(
    tensors: list[Tensor], outs: list[Tensor], incoming: list[Tensor], labels: Tensor, *_: float, **__: float
) -> list[Tensor]:
    """As of subgroup_similarity; what complements are held against passes two unit vectors and a mean."""
    _, foreground, background = (each.flatten(0, -2) for each in tensors)
    groups = labels.repeat_interleave(tensors[1].shape[1])
    own = background / background.norm(dim=1, keepdim=True)
    contrast = own + own.mean(0)
    total = [5 * incoming[0] + incoming[2]]
    of_foreground, of_contrast = _terms_of_subgroup_similarity([foreground, contrast], outs, total, groups)
    of_background = 4 * of_contrast.max() / background.norm(dim=1, keepdim=True)
    return [tensors[0].new_zeros(0), of_foreground, of_background]


TERMS = {
    "inter_intra": _terms_of_inter_intra,
    "regulate": _terms_of_regulate,
    "masked_pool": _terms_of_masked_pool,
    "subgroup_similarity": _terms_of_subgroup_similarity,
}
"""Terms that cancel: of those of a gradient for each floating argument, by operator."""

CASES = [
    Case(
        "label_cam",
        "label_cam",
        functional.label_cam,
        lambda s, d: [_random(*s, dtype=d), _random(2, 4, s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0], 4)],
    ),
    Case(
        "label_cam-one_classifier",
        "label_cam",
        functional.label_cam,
        lambda s, d: [_random(*s, dtype=d), _random(1, 1000, s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0], 1000)],
    ),
    Case(
        "regulate",
        "regulate",
        functional.regulate,
        lambda s, d: [_random(s[0], *s[2:], dtype=d), _random(s[0], *s[2:], dtype=d, seed=1)],
    ),
    Case(
        "regulate-other_temperature",
        "regulate",
        partial(functional.regulate, temperature=0.3),
        lambda s, d: [_random(s[0], *s[2:], dtype=d), _random(s[0], *s[2:], dtype=d, seed=1)],
    ),
    Case(
        "regulate-given_thresholds",
        "regulate",
        functional.regulate,
        lambda s, d: [
            _random(s[0], *s[2:], dtype=d),
            _random(s[0], *s[2:], dtype=d, seed=1),
            torch.sigmoid(_random(s[0], 2, dtype=d, seed=2)),
        ],
    ),
    Case(
        "regulate-learned_thresholds",
        "regulate",
        lambda a, b, r: functional.regulate(a, b, offsets=r),
        lambda s, d: [
            _random(s[0], *s[2:], dtype=d),
            _random(s[0], *s[2:], dtype=d, seed=1),
            _random(s[0], 2, dtype=d, seed=2),
        ],
    ),
    Case(
        "masked_pool",
        "masked_pool",
        functional.masked_pool,
        lambda s, d: [_random(*s, dtype=d), torch.sigmoid(_random(s[0], 2, *s[2:], dtype=d, seed=1))],
    ),
    Case(
        "masked_pool-three_masks",
        "masked_pool",
        functional.masked_pool,
        lambda s, d: [_random(*s, dtype=d), torch.sigmoid(_random(s[0], 3, *s[2:], dtype=d, seed=1))],
    ),
    Case(
        "subgroup_similarity",
        "subgroup_similarity",
        functional.subgroup_similarity,
        lambda s, d: [_random(s[0] * s[2], s[1], dtype=d), _random(s[0] * s[2], s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0] * s[2], 3)],
    ),
    Case(
        "subgroup_similarity-one_class",
        "subgroup_similarity",
        functional.subgroup_similarity,
        lambda s, d: [_random(s[0] * s[2], s[1], dtype=d), _random(s[0] * s[2], s[1], dtype=d, seed=1)],
        lambda s: [torch.full((s[0] * s[2],), -5)],
    ),
    Case(
        "inter_intra",
        "inter_intra",
        partial(functional.inter_intra, intra_weight=3.0, inter_weight=2.0),
        lambda s, d: [torch.sigmoid(_random(2 * s[0], 2, dtype=d)), *_regions(s, d)],
        lambda s: [_labels(_images(s), 3)],
    ),
    Case(
        "inter_intra-agreement",
        "inter_intra",
        lambda t, f, b, y: functional.inter_intra(t, f, b, y, 3.0, 2.0, "agreement"),
        lambda s, d: [torch.sigmoid(_random(2 * s[0], 2, dtype=d)), *_regions(s, d)],
        lambda s: [torch.full((_images(s),), -5)],
    ),
    Case(
        "dual_cam-learned_thresholds",
        "dual_cam",
        lambda f, w, b, v, o, y: functional.dual_cam(f, w, b, y, offset_weights=v, offset_biases=o, class_mean=0.3),
        lambda s, d: [_random(*s, dtype=d), *_classifiers(s[1], d), *_offsets(s[1], d)],
        lambda s: [_labels(s[0], 4)],
    ),
    Case(
        "dual_cam-in_a_step",
        "dual_cam",
        lambda f, w, b, v, o, y: _in_a_step(functional.dual_cam(f, w, b, y, offset_weights=v, offset_biases=o)),
        lambda s, d: [_random(*s, dtype=d), *_classifiers(s[1], d), *_offsets(s[1], d)],
        lambda s: [_labels(s[0], 4)],
    ),
    Case(
        "dual_cam-own_maps",
        "dual_cam",
        lambda f, a, b, w, c, t, y: functional.dual_cam(f, w, c, y, maps=(a, b), thresholds=t, class_mean=0.5),
        lambda s, d: [
            _random(*s, dtype=d),
            _random(s[0], 6, *s[2:], dtype=d, seed=5),
            _random(s[0], 6, *s[2:], dtype=d, seed=6),
            *_classifiers(6, d),
            torch.sigmoid(_random(s[0], 2, dtype=d, seed=2)),
        ],
        lambda s: [_labels(s[0], 4)],
    ),
    Case(
        "evidence_map",
        "evidence_map",
        functional.evidence_map,
        lambda s, d: [_random(*s, dtype=d), _random(s[0], 2, s[1], dtype=d, seed=1)],
        differentiable=False,
    ),
]


@pytest.fixture(scope="module", autouse=True)
def tensors_on_the_device(device: str) -> Iterator[None]:
    """Tensors that a test makes without naming a device are on the one under test."""
    with torch.device(device) if device != "cpu" else nullcontext():
        yield


@pytest.fixture(scope="session")
def new_case() -> type[Case]:
    """Makes cases beyond the table."""
    return Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=[case for case in CASES if case.differentiable], ids=lambda case: case.name)
def differentiable(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def widest(implementation: str) -> tuple[torch.dtype, float]:
    """The widest dtype that the implementation under test takes by itself, and how far it may be off then.

    What the native implementations do not take is the reference's, and agrees with it to the bit.
    """
    return (torch.float32, 1e-5) if implementation == "native" else (torch.float64, 1e-12)


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request: pytest.FixtureRequest, implementation: str) -> tuple[int, int, int, int]:
    batch, *others = request.param
    # Triton's interpreter is slow.
    return (batch if implementation == "native" else min(batch, 2), *others)


@pytest.fixture(scope="session")
def random() -> Callable[..., Tensor]:
    """Makes random tensors on the device under test, of a shape, dtype and seed."""
    return _random
