"""From a network to metrics: the true class's maps, ranked classes, the same result from cached features."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from iir_fast.data import ProceduralDataset
from iir_fast.evaluation import (
    REFINEMENTS,
    Evaluator,
    StoredMaps,
    evaluate_maps,
    evaluate_scoremaps,
    fit_image,
    own_threshold,
    predict,
    refine,
    resize_scoremap,
)
from iir_fast.models import IIRNetwork, NetworkSpec

MAPS = ("evidence", "cam")


def make() -> tuple[IIRNetwork, ProceduralDataset]:
    torch.manual_seed(0)
    dataset = ProceduralDataset("test", 20)
    model = NetworkSpec("small_cnn", dataset.classes, 64, hidden=8).build().eval()
    model.prototypes.update(torch.rand(10, 2, model.backbone.channels), torch.arange(10))
    return model, dataset


def test_predictions_are_of_the_true_class_in_the_order_of_the_data():
    model, dataset = make()
    counted = []
    predictions = predict(model, DataLoader(dataset, 8), MAPS, on_batch=counted.append)
    assert counted == [8, 8, 4]
    alone = model.localize(dataset[13][0][None], torch.tensor([dataset.labels[13]]), MAPS)
    for map in MAPS:
        assert predictions.maps[map].shape == (20, 16, 16)
        torch.testing.assert_close(predictions.maps[map][13], alone.maps[map][0], rtol=1e-3, atol=1e-4)
    assert predictions.ranked_classes.shape == (20, 5)
    assert predictions.ranked_classes[13, 0] == int(alone.logits.argmax())


def test_features_give_the_same_predictions_as_images():
    model, dataset = make()
    from_images = predict(model, DataLoader(dataset, 8), MAPS)
    with torch.no_grad():
        features = [(model.backbone(images), labels) for images, labels in DataLoader(dataset, 8)]
    from_features = predict(model, features, MAPS, from_features=True)
    assert all(torch.equal(from_images.maps[map], from_features.maps[map]) for map in MAPS)


def test_perfect_maps_get_full_marks():
    model, dataset = make()
    predictions = predict(model, DataLoader(dataset, 20), MAPS)
    for i in range(20):
        mask = torch.from_numpy(dataset.ground_truth(i).masks[0]).float()
        predictions.maps["cam"][i] = torch.nn.functional.avg_pool2d(mask[None], 4)[0]
    predictions.ranked_classes[:, 0] = dataset.labels
    seen = []
    metrics = evaluate_maps(predictions, "cam", dataset, Evaluator("test", workers=0), seen.append)
    assert len(seen) == 20
    assert metrics.max_box_acc == metrics.top1_loc == 100
    assert metrics.max_box_acc_v2 > 95
    assert metrics.pxap > 95
    assert evaluate_maps(predictions, "evidence", dataset, Evaluator("test", workers=0)).max_box_acc_v2 < 70


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_maps_are_refined_by_their_images_and_cut_as_the_refined_ones_are(refinement):
    model, dataset = make()
    predictions = predict(model, DataLoader(dataset, 20), MAPS)
    predictions.maps["cam"][3] = torch.eye(16)[5, :, None] * torch.eye(16)[7]  # as a peak is cut near its foot
    loads = SimpleNamespace(run=lambda images, load, on_image: load(3))
    found = evaluate_maps(predictions, "cam", dataset, loads, refinement=refinement)
    expected = refine(resize_scoremap(predictions.maps["cam"][3]), fit_image(dataset.image(3)), refinement)
    assert np.array_equal(found.scoremap, expected)
    assert found.own_threshold == own_threshold(expected, refinement)
    assert own_threshold(expected) < own_threshold(expected, "grabcut"), "or nothing tells them apart"


def test_without_boxes_images_are_judged_by_their_classes_alone(monkeypatch):
    model, dataset = make()
    predictions, truth = predict(model, DataLoader(dataset, 20), MAPS), dataset.ground_truth
    monkeypatch.setattr(dataset, "ground_truth", lambda i: replace(truth(i), boxes=np.zeros((0, 4))))
    verdicts = []
    metrics = evaluate_maps(predictions, "cam", dataset, Evaluator("test"), on_verdict=verdicts.append)
    assert [each.predicted for each in verdicts] == predictions.ranked_classes[:, 0].tolist()
    assert metrics.errors is metrics.fixed_threshold is verdicts[0].iou is None


def test_saved_score_maps_give_the_same_metrics_and_with_predictions_all_of_them(tmp_path):
    model, dataset = make()
    predictions = predict(model, DataLoader(dataset, 20), MAPS)
    evaluator, seen = Evaluator("test", 0.05), []
    expected = evaluate_maps(predictions, "cam", dataset, evaluator, save_to=tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 20
    maps = StoredMaps(tmp_path, dataset.ids)
    assert np.array_equal(maps[7], resize_scoremap(predictions.maps["cam"][7]))
    verdicts, again = [], []
    judged = evaluate_maps(predictions, "cam", dataset, evaluator, on_verdict=verdicts.append)
    assert replace(judged, errors=None) == expected
    assert [each.image_id for each in verdicts] == list(dataset.ids)
    assert sum(each.is_localized for each in verdicts) * 5 == expected.gt_known_loc
    assert judged.errors["none"] == expected.top1_loc
    assert judged.to_dict()["errors"] == judged.errors
    found = evaluate_scoremaps(maps, dataset, evaluator, seen.append)
    assert len(seen) == 20
    ranks = "top1_loc", "top5_loc", "no_box_top1_loc", "no_box_top5_loc", "top1_accuracy", "top5_accuracy"
    nothing_classified = dict.fromkeys(ranks)
    assert expected.top1_accuracy is not None
    assert found == replace(expected, top_peaks=(), **nothing_classified)
    np.save(ranked := tmp_path / "ranked.npy", predictions.ranked_classes)
    assert evaluate_scoremaps(maps, dataset, evaluator, predictions=ranked, on_verdict=again.append) == judged
    assert again == verdicts
    np.save(small := tmp_path / "small.npy", predictions.maps["cam"].numpy())
    assert evaluate_scoremaps(StoredMaps(small, dataset.ids, resize=True), dataset, evaluator) == found
