"""A run is evaluated on the data that it was configured for, and loaded with what its evaluation chose."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import iir_fast
from iir_fast.app.runs import LoadedRun, evaluate, evaluate_run
from iir_fast.data import ProceduralDataset, image_transform
from iir_fast.evaluation import Evaluator, FixedThreshold
from iir_fast.models import NetworkSpec
from iir_fast.training import RunFolder, TrainConfig, train


def test_the_embedded_datas_recipe_holds_for_training_and_evaluation(tmp_path):
    options = {"train_images": 40, "test_images": 30, "epochs": 1, "classes_per_batch": 4, "images_per_class": 4}
    config = TrainConfig().with_options(hidden=8, clutter=3.0, **options)
    result = train(config, tmp_path / "run")
    backbone = result.model.backbone
    transform = image_transform(64, backbone.mean, backbone.std)
    by_recipe = {
        recipe: evaluate(
            LoadedRun(
                result.model,
                result.spec,
                config,
                ProceduralDataset("test", 30, transform=transform, recipe=recipe),
            ),
            ("cam",),
            Evaluator("test", 0.01),
        )["cam"].pxap
        for recipe in (config.embedded, TrainConfig().embedded)
    }
    assert evaluate_run(tmp_path / "run", maps=("cam",))["cam"].pxap == by_recipe[config.embedded]
    assert by_recipe[config.embedded] != by_recipe[TrainConfig().embedded]
    usual = train(TrainConfig().with_options(hidden=8, **options), tmp_path / "usual").model
    assert not usual.head.weight.equal(result.model.head.weight)


def test_load_gives_the_newest_checkpoint_with_the_thresholds_of_its_evaluation(tmp_path):
    spec, folder = NetworkSpec("small_cnn", ("cat", "dog"), image_size=32, hidden=8), RunFolder(tmp_path / "run")
    torch.manual_seed(0)
    model = spec.build().eval()
    file = folder.checkpoints.save(3, spec, model, {})
    fixed = {"value": 0.45, "chosen_on": "val"}
    folder.write_metrics(
        {"test": {"cam": {"fixed_threshold": fixed}, "both": {"fixed_threshold": None}, "evidence": {}}}
    )
    predictor = iir_fast.load(tmp_path / "run", device="cpu")
    assert predictor.spec == spec
    assert torch.equal(predictor.network.head.weight, model.head.weight)
    assert predictor.threshold("cam", "none") == FixedThreshold(0.45, "val")
    assert predictor.threshold("both", "none") is iir_fast.load(file).threshold("cam", "none") is None

    Image.effect_noise((50, 40), 90).save(tmp_path / "noise.png")
    [found] = predictor.localize(tmp_path / "noise.png")
    assert (found.path, found.size) == (str(tmp_path / "noise.png"), (50, 40))
    assert found.objects[0].label in ("cat", "dog")
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        iir_fast.load(tmp_path / "nowhere")


def test_other_data_change_nothing_that_the_run_says_of_its_own(tmp_path, monkeypatch):
    for name, count in (("own", 6), ("other", 4)):
        rows = ["path,label,x0,y0,x1,y1"]
        (tmp_path / name).mkdir()
        for i in range(count):
            (image := Image.effect_noise((40, 30), 90)).save(tmp_path / name / f"{i}.png")
            rows.append(f"{i}.png,{('cat', 'dog')[i % 2]},{i},0,{image.width},{image.height - i}")
        (tmp_path / name / "test.csv").write_text("\n".join(rows) + "\n")
    spec, folder = NetworkSpec("small_cnn", ("cat", "dog"), image_size=32, hidden=8), RunFolder(tmp_path / "run")
    folder.open(TrainConfig().with_options(data=str(tmp_path / "own"), hidden=8), "refuse")
    torch.manual_seed(0)
    folder.checkpoints.save(3, spec, spec.build(), {})
    evaluate_run(folder.root, maps=("both",), fixed_threshold=FixedThreshold(0.45, "val"))
    before = folder.read_metrics()
    assert before["test"]["both"]["data"] == str(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    for refinement in ("none", "guided"):
        evaluate_run(folder.root, maps=("both",), data="other", refinement=refinement)
    after, name = folder.read_metrics(), f"test of {tmp_path / 'other'}"
    assert after.keys() == {"test", name, f"{name}, guided"}
    assert after["test"] == before["test"]
    found = after[name]["both"]
    assert (found["data"], found["split"], found["images"]) == (str(tmp_path / "other"), name, 4)
    assert found["fixed_threshold"]["chosen_on"] == f"{name}, the split it is reported on"
    assert iir_fast.load(folder.root).threshold("both", "none") == FixedThreshold(0.45, "val")
    evaluate_run(folder.root, maps=("both",), data="own")
    assert folder.read_metrics()["test"] != before["test"]
