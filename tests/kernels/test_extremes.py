"""What holds for every operator at the ends of a dtype's range: right numbers within the bound that the contract names,
and beyond it right numbers or none, never wrong ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iir_fast.functional import iir_loss
from iir_fast.kernels import backend

SCALED = {
    "label_cam": [0],
    "regulate": [0, 1],
    "masked_pool": [0],
    "subgroup_similarity": [0, 1],
    "inter_intra": [1, 2],
    "dual_cam": [0],
    "evidence_map": [0],
}
"""Which floating arguments of an operator are multiplied: features, CAMs and descriptors."""
SHAPE = (2, 17, 4, 5)


def results(
    case, magnitude: float, positions: list[int], dtype: torch.dtype, name: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Results and gradients, and those of the float64 reference, of arguments some of which have that magnitude."""
    tensors = case.make(SHAPE, torch.float64)
    for position in positions:
        tensors[position] = tensors[position].clamp(-3, 3) / 3 * magnitude
    tensors = [tensor.to(dtype) for tensor in tensors]
    expected = case.run_with_gradients([tensor.double() for tensor in tensors], SHAPE, "reference")
    return case.run_with_gradients(tensors, SHAPE, name), expected


def errors(actual: Tensor, expected: Tensor) -> Tensor:
    """Deviations over the largest magnitude of what is expected; of what is nearly nothing, over 1e-34."""
    return (actual.double() - expected).abs() / expected.abs().max().clamp(min=1e-34)


@pytest.mark.parametrize("magnitude", [1e-38, 1e-30, 1e-10, 1e17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_within_the_bound(case, magnitude, dtype, each_backend):
    tolerance = max(3e-5, torch.finfo(dtype).eps)
    found = results(case, magnitude, SCALED[case.operator], dtype, each_backend)
    for position, (one, other) in enumerate(zip(*found, strict=True)):
        assert one.isfinite().all(), position
        assert (errors(one, other) <= tolerance).all(), position


@pytest.mark.parametrize("magnitude", [1e20, 3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_wrong_number_beyond_the_bound(case, magnitude, dtype, each_backend):
    tolerance = max(3e-5, torch.finfo(dtype).eps)
    for scaled in SCALED[case.operator]:
        found = results(case, magnitude, [scaled], dtype, each_backend)
        for position, (one, other) in enumerate(zip(*found, strict=True)):
            wrong = one.isfinite() & ~(errors(one, other) <= tolerance)
            assert not wrong.any(), (scaled, position)


@pytest.mark.parametrize("thresholds", [None, 0.0, 1.0])
@pytest.mark.parametrize("temperature", [1e-6, 0.1, 1e6])
def test_one_pixel_alone_and_masks_at_their_limits(temperature, thresholds, each_backend, device):
    """CAMs that are 0 but at one pixel, cut as sharply, as softly, as low and as high as anybody can."""
    cam_a, cam_b = torch.zeros(2, 2, 5, 5)
    cam_a[:, 2, 3], cam_b[:, 1, 1] = 1e30, 1e-10
    features = torch.rand(2, 9, 5, 5)
    given = None if thresholds is None else torch.full((2, 2), thresholds, device=device)
    losses, gradients = [], []
    for name, dtype in ((each_backend, torch.float32), ("reference", torch.float64)):
        leaves = [each.to(device, dtype).requires_grad_() for each in (cam_a, cam_b, features)]
        with backend(name):
            terms = iir_loss(*leaves, torch.zeros(2, dtype=torch.long, device=device), given, temperature=temperature)
            losses.append(terms.loss.double())
            gradients.append(torch.autograd.grad(terms.loss, leaves))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients[0])
