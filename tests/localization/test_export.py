"""Exported predictors give what the predictor gives, in a process that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from iir_fast.data import image_transform
from iir_fast.evaluation import FixedThreshold, largest_box, resize_scoremap
from iir_fast.localization import Predictor, export_network, scale_box

pytestmark = pytest.mark.slow

# Variants of the head, with a map of map each.
VARIANTS = [
    pytest.param("evidence", {}, id="evidence"),
    pytest.param("both", {"hidden": None}, id="both, one map for both classifiers"),
    pytest.param("cam", {"threshold": "mean", "erase": 0.8}, id="cam, own mean as threshold, erasing"),
]
ELSEWHERE = """
import operator, sys, numpy, torch
program = torch.export.load("mine.pt2", extra_files=(about := {"iir_fast.json": ""}))
outputs = program.module()(torch.from_numpy(numpy.load("images.npy")))
numpy.savez("outputs.npz", *(each.numpy() for each in outputs))
targets = {node.target for node in program.graph.nodes if node.op == "call_function"} - {operator.getitem}
assert all(str(target).startswith("aten.") for target in targets), targets
assert not any(name.startswith("iir_fast") for name in sys.modules)
print(about["iir_fast.json"])
"""


def expected(predictor: Predictor, images: torch.Tensor, map: str) -> list[np.ndarray]:
    found = predictor.network.localize(images, maps=(map,))
    return [found.logits.numpy(), found.labels.numpy(), resize_scoremap(found.maps[map])]


def assert_same(outputs: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    logits, labels, scoremaps = outputs
    assert (logits.dtype, labels.dtype, scoremaps.dtype) == (np.float32, np.int64, np.float32)
    np.testing.assert_allclose(logits, wanted[0], atol=1e-5)
    np.testing.assert_array_equal(labels, wanted[1])
    # OpenCV's weights are off by up to 2e-5.
    np.testing.assert_allclose(scoremaps, wanted[2], atol=3e-5)


def some_images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("map", "changes"), VARIANTS)
def test_onnx_gives_the_localizers_results_for_any_number_of_images(make_predictor, tmp_path, map, changes):
    predictor = make_predictor(**changes)
    export_network(predictor, tmp_path / "mine.onnx", map)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["logits", "labels", "scoremaps"]
    for count in (1, 5):
        images = some_images(count)
        assert_same(session.run(None, {"images": images.numpy()}), expected(predictor, images, map))
    about = json.loads(session.get_modelmeta().custom_metadata_map["iir_fast.json"])
    assert (about["classes"], about["map"], about["threshold"]) == (["cat", "dog", "cow"], map, None)


@pytest.mark.parametrize(("map", "changes"), VARIANTS[1:])
def test_torch_export_gives_the_localizers_results(make_predictor, tmp_path, map, changes):
    predictor = make_predictor(**changes)
    export_network(predictor, tmp_path / "mine.pt2", map)
    program = torch.export.load(tmp_path / "mine.pt2").module()
    for count in (1, 5):
        images = some_images(count)
        assert_same([each.numpy() for each in program(images)], expected(predictor, images, map))


def test_torch_export_runs_where_this_package_is_not_imported(predictor, pictures, tmp_path):
    predictor = replace(predictor, thresholds={"both": FixedThreshold(0.45, "val")})
    backbone = predictor.network.backbone
    weight = backbone.net[0].weight
    export_network(predictor, tmp_path / "mine.pt2")
    assert weight.requires_grad, "the predictor must stay as it is"
    assert weight.is_contiguous(memory_format=torch.channels_last), "the predictor must stay as it is"

    transform = image_transform(32, backbone.mean, backbone.std)
    images = torch.stack([transform(picture) for picture in pictures])
    np.save(tmp_path / "images.npy", images.numpy())
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "outputs.npz") as content:
        outputs = [content[name] for name in content.files]
    assert_same(outputs, expected(predictor, images, "both"))
    assert json.loads(result.stdout) == {
        "classes": ["cat", "dog", "cow"],
        "image_size": 32,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "map": "both",
        "threshold": 0.45,
    }
    for scoremap, picture, found in zip(
        outputs[2], pictures, predictor.localize(pictures, refinement="none"), strict=True
    ):
        box = scale_box(largest_box(scoremap.astype("float64"), 0.45), picture.size)
        # float32 may fall to the other side of a grey level than float64: a pixel of 224.
        np.testing.assert_allclose(box, found.objects[0].box, atol=1)


def test_a_constant_or_broken_map_becomes_zeros(predictor, tmp_path):
    with torch.no_grad():
        predictor.network.head.weight.zero_()
    export_network(predictor, tmp_path / "mine.pt2", "cam")
    program = torch.export.load(tmp_path / "mine.pt2").module()
    assert not program(some_images(2))[2].any()
    images = some_images(2)
    images[0] = torch.nan
    assert not program(images)[2].any()


def test_other_files_and_maps_are_refused(predictor, tmp_path):
    with pytest.raises(ValueError, match=r"file is .*mine\.pt; accepted are names that end in \.pt2 or \.onnx"):
        export_network(predictor, str(tmp_path / "mine.pt"))
    with pytest.raises(ValueError, match="map is 'heat'; accepted are both, evidence, cam"):
        export_network(predictor, tmp_path / "mine.pt2", "heat")


def test_onnx_without_its_packages_says_what_to_install(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "iir-fast\[export\]"'):
        export_network(predictor, tmp_path / "mine.onnx")
