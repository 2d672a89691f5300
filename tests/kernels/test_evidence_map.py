"""evidence_map: its meaning, pixels without a feature, and that it never gives a gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast.functional import evidence_map
from iir_fast.kernels import backend


def test_is_a_difference_of_cosines():
    features = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    prototype, background = torch.randn(2, 2, 7, dtype=torch.float64)
    vector = F.normalize(prototype, dim=1) - F.normalize(background, dim=1)
    evidence = evidence_map(features, vector[:, None])[:, 0]
    cosine = [F.cosine_similarity(features, each[:, :, None, None], dim=1) for each in (prototype, background)]
    torch.testing.assert_close(evidence, cosine[0] - cosine[1])


@pytest.mark.parametrize("length", [0.0, 1e-13, 1e-12])
def test_a_pixel_without_a_feature_is_zero(length, each_backend):
    features = torch.randn(1, 5, 2, 2)
    features[..., 0, 0] = length * torch.eye(5)[0]
    with backend(each_backend):
        evidence = evidence_map(features, torch.ones(1, 1, 5))
    assert evidence[0, 0, 0, 0] == 0
    assert evidence.isfinite().all()


@pytest.mark.parametrize("which", ["features", "vectors"])
def test_asked_for_a_gradient_it_raises(each_backend, which):
    arguments = {"features": torch.randn(1, 5, 2, 2), "vectors": torch.randn(1, 1, 5)}
    arguments[which].requires_grad_()
    with backend(each_backend), pytest.raises(RuntimeError, match="for inference only"):
        evidence_map(**arguments)
    with backend(each_backend), torch.no_grad():
        assert evidence_map(**arguments).isfinite().all()


def test_the_bare_operator_raises_in_the_backward_pass():
    features = torch.randn(1, 5, 2, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="for inference only"):
        torch.ops.iir_fast.evidence_map(features, torch.randn(1, 1, 5)).sum().backward()


@pytest.mark.parametrize("vectors", [torch.zeros(1, 5), torch.zeros(1, 1, 4), torch.zeros(1, 0, 5)])
def test_errors_name_the_argument(vectors):
    with pytest.raises(ValueError, match="vectors has shape"):
        evidence_map(torch.zeros(1, 5, 2, 2), vectors)
