"""What the report holds of an image is what the network and the evaluator say of it."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from iir_fast.app.progress import image_progress
from iir_fast.app.runs import image_batches, load_run
from iir_fast.evaluation import largest_box, resize_scoremap, scale_boxes
from iir_fast.evaluation.boxes import box_iou
from iir_fast.report.images import report_images

MAPS = ("both", "evidence")
TAUS = np.array([0.1, 0.35, 0.8])


def test_images_are_described_as_localized_and_boxed(run_folder):
    run = load_run(run_folder)
    indices = [0, 7, 35]
    with image_progress() as progress:
        batches = image_batches(run, progress, indices)
        seen: list[int] = []
        found = list(report_images(run, batches, indices, MAPS, TAUS, seen.append))
    assert seen == [1, 1, 1]
    for i, image in zip(indices, found, strict=True):
        inputs, label = run.dataset[i]
        alone = run.model.localize(inputs[None], torch.tensor([label]), MAPS)
        probabilities = alone.logits[0].softmax(0)
        truth = run.dataset.ground_truth(i)
        assert (image.id, image.label) == (run.dataset.ids[i], label)
        assert image.predicted == int(probabilities.argmax())
        assert abs(image.probability - float(probabilities.max())) < 1e-5
        assert image.rank == int((probabilities > probabilities[label]).sum())
        np.testing.assert_allclose(image.cams, alone.cams[0].numpy(), atol=1e-4)
        assert image.size == truth.size
        np.testing.assert_array_equal(image.true_boxes, truth.boxes)
        for row, map in enumerate(MAPS):
            np.testing.assert_allclose(image.maps[row], alone.maps[map][0].numpy(), atol=1e-4)
            scoremap = resize_scoremap(torch.from_numpy(image.maps[row]))
            boxes = np.array([largest_box(scoremap, tau) for tau in TAUS])
            np.testing.assert_array_equal(
                image.iou[row], box_iou(boxes, scale_boxes(truth.boxes, truth.size)).max(axis=1)
            )
        thumbnail = Image.open(io.BytesIO(image.thumbnail))
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == {(64, 64): (64, 64), (96, 64): (96, 64), (300, 420): (160, 224)}[truth.size]
    assert len(found[0].true_boxes) == 2
