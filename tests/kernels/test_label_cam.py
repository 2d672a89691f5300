"""label_cam: equality with the usual CAM head, and its errors."""

from __future__ import annotations

import pytest
import torch

from iir_fast.functional import label_cam


def test_equals_the_class_maps_of_the_usual_head():
    features = torch.randn(6, 5, 4, 3, dtype=torch.float64)
    weights = torch.randn(2, 7, 5, dtype=torch.float64)
    labels = torch.tensor([0, 6, 3, 3, 1, 0])
    cams, pooled = label_cam(features, weights, labels)
    for classifier in range(2):
        class_maps = torch.nn.functional.conv2d(features, weights[classifier][:, :, None, None])
        torch.testing.assert_close(cams[:, classifier], class_maps[torch.arange(6), labels])
        torch.testing.assert_close(pooled @ weights[classifier].T, class_maps.mean(dim=(2, 3)))


def test_frozen_features_get_no_gradient_and_the_weights_still_do():
    features, weights = torch.randn(2, 3, 4, 4), torch.randn(1, 5, 3, requires_grad=True)
    label_cam(features, weights, torch.tensor([1, 1])).cams.sum().backward()
    assert features.grad is None
    torch.testing.assert_close(weights.grad[0, 1], features.sum(dim=(0, 2, 3)))
    assert not weights.grad[0, [0, 2, 3, 4]].any()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": torch.tensor([0, 5])}, IndexError, "labels holds values from 0 to 5; accepted are 0 to 4"),
        ({"labels": torch.tensor([-1, 0])}, IndexError, "labels holds values from -1"),
        ({"labels": torch.tensor([0, 1], dtype=torch.int32)}, TypeError, "labels has dtype torch.int32"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels has shape \[1\]"),
        ({"weights": torch.zeros(1, 5, 4)}, ValueError, r"weights has shape \[1, 5, 4\]; accepted is \[R,K,3\]"),
        ({"weights": torch.zeros(0, 5, 3)}, ValueError, "R and K must be at least 1"),
        ({"weights": torch.zeros(1, 5, 3, dtype=torch.int64)}, TypeError, "weights has dtype torch.int64"),
        ({"features": torch.zeros(2, 3, 4)}, ValueError, r"features has shape \[2, 3, 4\]; accepted is \[B,C,H,W\]"),
        ({"features": torch.zeros(2, 3, 0, 4)}, ValueError, "C, H and W must be at least 1"),
        ({"features": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, TypeError, "features has dtype torch.uint8"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    arguments = {"features": torch.zeros(2, 3, 4, 4), "weights": torch.zeros(1, 5, 3), "labels": torch.tensor([0, 1])}
    with pytest.raises(error, match=words):
        label_cam(**{**arguments, **change})
