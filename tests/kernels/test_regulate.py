"""regulate: the limits that make it a generalization of erasing and of seeds, constant maps, ties, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iir_fast.functional import regulate
from iir_fast.kernels import backend
from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE

TINY = 1e-4


def two_maps() -> tuple[Tensor, Tensor]:
    """Maps that are 0 somewhere and 1 somewhere, so that normalization changes nothing."""
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(2, 4, 8, 8, generator=generator, dtype=torch.float64, device="cpu")
    maps[:, :, 0, 0], maps[:, :, 7, 7] = 0, 1
    cam_a, cam_b = maps.to(torch.get_default_device())
    return cam_a, cam_b


def gradient_on_map_b(half: str, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of one half of `dual` on normalized map B as tau -> 0, and both maps, where the masks are 0 or 1.

    A pixel within the width of the sigmoid at the threshold is neither foreground nor background: a thin band of
    them is left out and counted.
    """
    cam_a, cam_b = two_maps()
    cam_b.requires_grad_()
    out = regulate(cam_a, cam_b, torch.full((4, 2), threshold, dtype=torch.float64), temperature=TINY)
    mask_a, mask_b = out.masks.unbind(1)
    map_a, map_b = out.maps.unbind(1)
    adversarial = (mask_a * mask_b * map_a * map_b).sum()
    chosen = adversarial if half == "adversarial" else out.terms[:, 0].sum() * 64 - adversarial
    gradient = torch.autograd.grad(chosen, cam_b)[0]
    clear = ((out.maps - threshold).abs() > 40 * TINY).all(dim=1)
    clear[:, 0, 0] = clear[:, 7, 7] = False  # the extremes, which normalization couples to every pixel
    assert (~clear).sum() <= 12
    return gradient[clear], map_a.detach()[clear], map_b.detach()[clear]


def test_adversarial_half_has_the_support_of_acol_s_erasing():
    gradient, map_a, map_b = gradient_on_map_b("adversarial", 0.6)
    erased = (map_a >= 0.6) & (map_b >= 0.6)
    assert erased.any()
    assert torch.equal(gradient.abs() > 1e-9, erased)
    torch.testing.assert_close(gradient[erased], map_a[erased])


def test_cooperative_half_is_consistency_on_the_joint_background():
    gradient, map_a, map_b = gradient_on_map_b("cooperative", 0.4)
    background = (map_a < 0.4) & (map_b < 0.4)
    torch.testing.assert_close(gradient, torch.where(background, 2 * (map_b - map_a), 0.0))


def test_agreement_is_the_share_of_pixels_where_masks_without_a_width_differ():
    cam_a, cam_b = two_maps()
    out = regulate(cam_a, cam_b, temperature=1e-9)
    mask_a, mask_b = out.masks.unbind(1)
    assert set(out.masks.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(out.terms[:, 1], (mask_a != mask_b).double().mean(dim=(1, 2)))


def test_threshold_is_the_mean_and_its_gradient_flows():
    cam = two_maps()[0].requires_grad_()
    out = regulate(cam, cam.detach())
    torch.testing.assert_close(out.thresholds[:, 0], cam.detach().mean(dim=(1, 2)))
    assert torch.autograd.grad(out.thresholds.sum(), cam)[0].abs().sum() > 0


def test_scale_and_shift_of_a_cam_do_not_matter():
    cam_a, cam_b = two_maps()
    plain, moved = regulate(cam_a, cam_b), regulate(100 * cam_a - 7, cam_b)
    for one, other in zip(plain, moved, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e30])
def test_a_constant_map_is_zero_with_zero_gradient(value):
    flat = torch.full((2, 5, 5), value, requires_grad=True)
    other = torch.randn(2, 5, 5, requires_grad=True)
    out = regulate(flat, other)
    assert not out.maps[:, 0].any()
    (out.terms.sum() + out.masks.sum() + out.maps.square().sum() + out.thresholds.sum()).backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))
    assert other.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_of_rounding_noise_counts_as_constant(dtype):
    noise = 1000 + 1e-4 * torch.rand(1, 5, 5, dtype=dtype)
    assert noise.unique().numel() > 1
    assert not regulate(noise, torch.rand(1, 5, 5, dtype=dtype)).maps[:, 0].any()


def test_a_range_right_at_the_bound_is_constant_and_the_next_one_is_not():
    bound = FLAT_ABSOLUTE
    for _ in range(9):
        bound = FLAT_RELATIVE * bound + FLAT_ABSOLUTE
    for high, largest in ((bound, 0), (math.nextafter(bound, 1), 1)):
        cam = torch.tensor([[[0.0, high]]], dtype=torch.float64)
        assert regulate(cam, cam).maps.max() == largest


@pytest.mark.parametrize("given", [None, torch.full((2, 2), 0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_nan_leaves_no_number_in_its_map_nor_in_its_samples_terms(dtype, given, each_backend, device):
    cam_a, cam_b = torch.randn(2, 2, 5, 5, dtype=dtype)
    cam_a[1, 2, 3] = torch.nan
    with backend(each_backend):
        out = regulate(cam_a, cam_b, given if given is None else given.to(device, dtype))
    assert out.maps[1, 0].isnan().all()
    assert out.masks[1, 0].isnan().all()
    assert out.terms[1].isnan().all()
    for each in (out.maps[0], out.masks[0], out.terms[0], out.maps[1, 1], out.masks[1, 1]):
        assert each.isfinite().all()


def test_ties_at_the_extremes_share_the_gradient():
    cam = torch.tensor([[[0.0, 0.0, 2.0, 2.0, 2.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    out = regulate(cam, cam.detach().flip(2))
    gradient = torch.autograd.grad(out.maps[:, 0].sum(), cam)[0].flatten()
    # d/d(low): sum (M-1)/range = -2.5/2 over two pixels; d/d(high): -sum M/range = -3.5/2 over three; 1/range each.
    expected = torch.tensor([0.5 - 0.625, 0.5 - 0.625, *[0.5 - 1.75 / 3] * 3, 0.5], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"cam_b": torch.zeros(2, 4, 5)}, ValueError, r"cam_b has shape \[2, 4, 5\]; accepted is \[2, 4, 4\]"),
        ({"cam_a": torch.zeros(2, 4)}, ValueError, "cam_a has shape"),
        ({"cam_a": torch.zeros(2, 0, 4), "cam_b": torch.zeros(2, 0, 4)}, ValueError, "H and W must be at least 1"),
        ({"cam_a": torch.zeros(2, 4, 4, dtype=torch.int32)}, TypeError, "cam_a has dtype"),
        ({"thresholds": torch.zeros(2)}, ValueError, r"thresholds has shape \[2\]; accepted is \[2,2\]"),
        ({"offsets": torch.zeros(2, 3)}, ValueError, r"offsets has shape \[2, 3\]; accepted is \[2,2\]"),
        ({"offsets": torch.zeros(2, 2), "thresholds": torch.zeros(2, 2)}, ValueError, "accepted is one of the two"),
        ({"temperature": 0.0}, ValueError, "temperature is 0.0"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    with pytest.raises(error, match=words):
        regulate(**{"cam_a": torch.zeros(2, 4, 4), "cam_b": torch.zeros(2, 4, 4), **change})


def test_offsets_move_the_threshold_from_the_mean_to_a_half_and_as_far_to_the_other_side():
    cam = torch.randn(3, 4, 5, dtype=torch.float64)
    mean = regulate(cam, cam).thresholds
    torch.testing.assert_close(regulate(cam, cam, offsets=torch.zeros(3, 2)).thresholds, mean)
    far = torch.full((3, 2), 30.0)
    assert torch.equal(regulate(cam, cam, offsets=far).thresholds, torch.full_like(mean, 0.5))
    torch.testing.assert_close(regulate(cam, cam, offsets=-far).thresholds, torch.sigmoid(2 * torch.logit(mean)))


def test_a_constant_map_with_an_offset_stays_finite():
    cam = torch.zeros(2, 3, 3, requires_grad=True)
    offsets = torch.zeros(2, 2, requires_grad=True)
    out = regulate(cam, cam, offsets=offsets)
    torch.testing.assert_close(out.thresholds, torch.full((2, 2), 1e-4))
    out.masks.sum().backward()
    assert torch.equal(cam.grad, torch.zeros_like(cam))
    assert offsets.grad.isfinite().all()
