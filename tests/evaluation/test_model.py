"""From a localizer to metrics: the true class's maps, ranked classes, the same result from cached features."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from iir_fast.data import ProceduralDataset
from iir_fast.evaluation import Evaluator, evaluate_maps, predict
from iir_fast.models import IIRLocalizer, LocalizerSpec

KINDS = ("evidence", "cam")


def make() -> tuple[IIRLocalizer, ProceduralDataset]:
    torch.manual_seed(0)
    dataset = ProceduralDataset("test", 20)
    model = LocalizerSpec("small_cnn", dataset.classes, 64, hidden=8).build().eval()
    model.prototypes.update(torch.rand(10, 2, model.backbone.channels), torch.arange(10))
    return model, dataset


def test_predictions_are_of_the_true_class_in_the_order_of_the_data():
    model, dataset = make()
    counted = []
    predictions = predict(model, DataLoader(dataset, 8), KINDS, on_batch=counted.append)
    assert counted == [8, 8, 4]
    alone = model.localize(dataset[13][0][None], torch.tensor([dataset.labels[13]]), KINDS)
    for kind in KINDS:
        assert predictions.maps[kind].shape == (20, 16, 16)
        torch.testing.assert_close(predictions.maps[kind][13], alone.maps[kind][0], rtol=1e-3, atol=1e-4)
    assert predictions.ranked_classes.shape == (20, 5)
    assert predictions.ranked_classes[13, 0] == int(alone.logits.argmax())


def test_features_give_the_same_predictions_as_images():
    model, dataset = make()
    from_images = predict(model, DataLoader(dataset, 8), KINDS)
    with torch.no_grad():
        features = [(model.backbone(images), labels) for images, labels in DataLoader(dataset, 8)]
    from_features = predict(model, features, KINDS, from_features=True)
    assert all(torch.equal(from_images.maps[kind], from_features.maps[kind]) for kind in KINDS)


def test_perfect_maps_get_full_marks():
    model, dataset = make()
    predictions = predict(model, DataLoader(dataset, 20), KINDS)
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
