"""Rows of a comparison that nothing was trained for, against what their definitions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iir_fast.comparison.baselines import Baseline, evaluate_baseline, gaussian
from iir_fast.data import image_transform, open_split
from iir_fast.evaluation import Evaluator, Predictions, evaluate_maps
from iir_fast.models import create_classifier
from iir_fast.training import RunFolder, TrainConfig

CONFIG = TrainConfig().with_options(test_images=30)


def evaluated(folder: Path, config: TrainConfig, baseline: Baseline) -> dict:
    run = RunFolder(folder)
    evaluate_baseline(run, config, baseline, "test", ("none", "guided"))
    content = run.read_metrics()
    assert content.keys() == {"test", "test, guided"}
    assert content["test"] != content["test, guided"]
    return content["test"]["cam"]


def test_the_gaussian_has_one_standard_deviation_at_a_quarter_of_the_side():
    scores = gaussian()
    offsets = np.arange(-111.5, 112) / 224
    expected = np.exp(-8 * (offsets[:, None] ** 2 + offsets**2))
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)


def test_boxes_of_the_center_are_centred_squares(tmp_path):
    found = evaluated(tmp_path / "center", CONFIG, "center")
    dataset = open_split("procedural", "test", image_transform(64, (0.0,) * 3, (1.0,) * 3), images=30)
    shares = []
    for half in range(1, 113):
        right = 0
        for i in range(len(dataset)):
            (box,) = dataset.ground_truth(i).boxes * 224 / dataset.image(i).width
            low, high = np.maximum(box[:2], 112 - half), np.minimum(box[2:], 112 + half)
            both = np.prod(np.maximum(high - low, 0))
            right += both / (np.prod(box[2:] - box[:2]) + (2 * half) ** 2 - both) >= 0.5
        shares.append(100 * right / len(dataset))
    # The protocol counts the last pixel of a box otherwise: one image in thirty may fall to the other side.
    assert abs(found["max_box_acc"] - max(shares)) < 3.4
    assert found["top1_accuracy"] is None
    assert found["top1_loc"] is None


def test_the_classifier_is_asked_for_its_own_best_class(tmp_path):
    localizer, spec = create_classifier("test_resnet", "random")
    torch.save(localizer.model.state_dict(), tmp_path / "weights.pt")
    config = CONFIG.with_options(backbone="test_resnet", weights=str(tmp_path / "weights.pt"))
    found = evaluated(tmp_path / "classifier", config, "classifier")
    dataset = open_split("procedural", "test", image_transform(spec.image_size, spec.mean, spec.std), images=30)
    maps = torch.cat([localizer(dataset[i][0][None]).maps["cam"] for i in range(len(dataset))])
    expected = evaluate_maps(Predictions({"cam": maps}, None), "cam", dataset, Evaluator("test"))
    assert found["max_box_acc_v2"] == pytest.approx(expected.max_box_acc_v2, abs=1.2)
    assert found["pxap"] == pytest.approx(expected.pxap, abs=0.1)


def test_random_weights_know_no_class(tmp_path):
    with pytest.raises(ValueError, match="weights is 'random'; a classifier as it is needs those of its training"):
        evaluate_baseline(RunFolder(tmp_path / "run"), CONFIG, "classifier", "test", ("none",))
    assert not (tmp_path / "run").exists()
