"""What holds for every operator whatever it is given: shapes, values, ties and constant maps are drawn by hypothesis.

Values are multiples of 1/8, so that ties at a map's extremes and maps without a range are frequent. Of the native
implementations only: Triton would compile kernels for each of the shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from iir_fast.functional import evidence_map, label_cam, masked_pool, regulate, subgroup_similarity
from iir_fast.kernels import backend

pytestmark = pytest.mark.native

# The same examples on every run, and no assertion on seconds.
reproducible = settings(derandomize=True, deadline=None, max_examples=60)
SIZES = st.integers(1, 5)
EIGHTHS = st.integers(-16, 16).map(lambda number: number / 8)
FEW = st.integers(1, 2)
"""As many vectors as the native implementations meet with the features at once."""
SHARES = st.integers(0, 8).map(lambda number: number / 8)


def tensors(*shape: int, elements: st.SearchStrategy[float] = EIGHTHS) -> st.SearchStrategy[Tensor]:
    return arrays(np.float32, shape, elements=elements).map(torch.from_numpy)


@st.composite
def cam_pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = draw(st.tuples(SIZES, SIZES, SIZES))
    return draw(tensors(*shape)), draw(tensors(*shape))


@st.composite
def features_and_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    batch, channels, masks, height, width = (draw(sizes) for sizes in (SIZES, SIZES, FEW, SIZES, SIZES))
    return draw(tensors(batch, channels, height, width)), draw(tensors(batch, masks, height, width, elements=SHARES))


@st.composite
def features_weights_labels(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, classifiers, classes, side = (draw(sizes) for sizes in (SIZES, SIZES, FEW, SIZES, SIZES))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch))
    features, weights = draw(tensors(batch, channels, side, 3)), draw(tensors(classifiers, classes, channels))
    return features, weights, torch.tensor(labels)


@st.composite
def descriptors_and_groups(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    count, channels = draw(st.integers(0, 7)), draw(SIZES)
    groups = draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count))
    foreground, background = draw(tensors(count, channels)), draw(tensors(count, channels))
    return foreground, background, torch.tensor(groups, dtype=torch.int64)


def agree(operator: Callable[..., object], floating: tuple[Tensor, ...], *others: object) -> None:
    """Results and gradients of the native implementation are those of the reference in float64."""
    found = []
    for name, dtype in (("native", torch.float32), ("reference", torch.float64)):
        leaves = [each.to(dtype, copy=True).requires_grad_() for each in floating]
        with backend(name):
            out = operator(*leaves, *others)
            outs = [out] if isinstance(out, Tensor) else list(out)
            # Results of unequal weight, so that no two gradients cancel.
            total = sum((each * (1 + torch.arange(each.numel()).view(each.shape) / 8)).sum() for each in outs)
            gradients = torch.autograd.grad(total, leaves)
        found.append([*outs, *gradients])
    for actual, expected in zip(*found, strict=True):
        scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5 * max(scale, 1.0))


@reproducible
@given(cam_pairs())
def test_regulate_agrees_with_the_reference(cams):
    agree(regulate, cams)


@reproducible
@given(cam_pairs())
def test_regulate_takes_a_and_b_alike(cams):
    forward, swapped = regulate(*cams), regulate(*reversed(cams))
    torch.testing.assert_close(swapped.terms, forward.terms)
    for one, other in zip(swapped[1:], forward[1:], strict=True):
        torch.testing.assert_close(one, other.flip(1))


@reproducible
@given(cam_pairs(), st.integers(-3, 3), st.integers(-8, 8))
def test_regulate_knows_cams_up_to_scale_and_offset(cams, power, offset):
    """The scales are powers of two and the offsets whole, which floating point takes without rounding."""
    cam_a, cam_b = cams
    moved = regulate(cam_a * 2.0**power + offset, cam_b)
    for one, other in zip(moved, regulate(cam_a, cam_b), strict=True):
        torch.testing.assert_close(one, other)


@reproducible
@given(cam_pairs())
def test_regulate_stays_within_its_ranges(cams):
    terms, masks, maps, thresholds = regulate(*cams)
    for each in (terms, masks, maps, thresholds):
        assert (each >= 0).all()
        assert (each <= 1).all()
    for each in (cam.flatten(1) for cam in (maps[:, 0], maps[:, 1])):
        assert all(row.max() == row.max().round() and row.min() == 0 for row in each)


@reproducible
@given(features_and_masks())
def test_masked_pool_agrees_with_the_reference(arguments):
    agree(masked_pool, arguments)


@reproducible
@given(features_and_masks())
def test_foreground_and_background_add_up_to_the_mean(arguments):
    features, masks = arguments
    foreground, background = masked_pool(features, masks)
    share = masks.mean(dim=(2, 3)).unsqueeze(2)
    mean = features.mean(dim=(2, 3)).unsqueeze(1)
    # What is missing is the epsilon of 1e-6 in the denominators.
    torch.testing.assert_close(share * foreground + (1 - share) * background, mean + 0 * foreground, rtol=0, atol=1e-5)


@reproducible
@given(features_and_masks(), st.randoms(use_true_random=False))
def test_masked_pool_does_not_know_where_a_pixel_is(arguments, random):
    features, masks = (each.flatten(2) for each in arguments)
    order = list(range(features.shape[2]))
    random.shuffle(order)
    shuffled = masked_pool(features[:, :, order].unsqueeze(3), masks[:, :, order].unsqueeze(3))
    for one, other in zip(shuffled, masked_pool(*arguments), strict=True):
        torch.testing.assert_close(one, other)


@reproducible
@given(features_weights_labels())
def test_label_cam_agrees_with_the_reference(arguments):
    agree(label_cam, arguments[:2], arguments[2])


@reproducible
@given(features_weights_labels())
def test_label_cams_are_rows_of_the_class_maps(arguments):
    features, weights, labels = arguments
    cams, pooled = label_cam(features, weights, labels)
    class_maps = torch.einsum("rkc,bchw->brkhw", weights, features)
    torch.testing.assert_close(cams, class_maps[torch.arange(len(labels)), :, labels])
    # Their means are the logits, which is why the class maps need not be built.
    torch.testing.assert_close(class_maps.mean(dim=(3, 4)), torch.einsum("rkc,bc->brk", weights, pooled))


@reproducible
@given(descriptors_and_groups())
def test_subgroup_similarity_agrees_with_the_reference(arguments):
    agree(subgroup_similarity, arguments[:2], arguments[2])


@reproducible
@given(descriptors_and_groups(), st.randoms(use_true_random=False))
def test_subgroup_similarity_knows_neither_order_nor_length_nor_names(arguments, random):
    foreground, background, groups = arguments
    order = list(range(len(groups)))
    random.shuffle(order)
    lengths = torch.tensor([2.0 ** random.randint(-3, 3) for _ in order], dtype=torch.float32).unsqueeze(1)
    found = subgroup_similarity((foreground * lengths)[order], (background * lengths)[order], 10 - 3 * groups[order])
    torch.testing.assert_close(found, subgroup_similarity(foreground, background, groups))


@reproducible
@given(descriptors_and_groups())
def test_samples_without_a_partner_count_for_nothing(arguments):
    foreground, background, groups = arguments
    alone = torch.cat((groups, torch.tensor([7])))
    found = subgroup_similarity(
        torch.cat((foreground, foreground.new_ones(1, foreground.shape[1]))),
        torch.cat((background, -background.new_ones(1, background.shape[1]))),
        alone,
    )
    torch.testing.assert_close(found, subgroup_similarity(foreground, background, groups))


@reproducible
@given(features_and_masks(), st.integers(-3, 3))
def test_evidence_is_the_cosine_times_the_vectors_length(arguments, power):
    features, vectors = arguments[0], arguments[1].flatten(2)[:, :, :1].expand(-1, -1, arguments[0].shape[1]) - 0.25
    found = evidence_map(features * 2.0**power, vectors)
    cosine = torch.cosine_similarity(features.unsqueeze(1), vectors[:, :, :, None, None], dim=2, eps=1e-12)
    torch.testing.assert_close(found, cosine * vectors.norm(dim=2)[:, :, None, None])
    with backend("reference"):
        torch.testing.assert_close(found, evidence_map(features * 2.0**power, vectors))
