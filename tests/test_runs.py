"""evaluate_run: a run is evaluated on the data that it was configured for."""

from __future__ import annotations

from iir_fast.data import ProceduralDataset, image_transform
from iir_fast.evaluation import Evaluator
from iir_fast.runs import LoadedRun, evaluate, evaluate_run
from iir_fast.training import TrainConfig, train


def test_the_embedded_datas_recipe_holds_for_training_and_evaluation(tmp_path):
    options = {"train_images": 40, "test_images": 30, "epochs": 1, "classes_per_batch": 4, "images_per_class": 4}
    config = TrainConfig(hidden=8, clutter=3.0, **options)
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
        for recipe in (config.recipe, TrainConfig().recipe)
    }
    assert evaluate_run(tmp_path / "run", kinds=("cam",))["cam"].pxap == by_recipe[config.recipe]
    assert by_recipe[config.recipe] != by_recipe[TrainConfig().recipe]
    usual = train(TrainConfig(hidden=8, **options), tmp_path / "usual").model
    assert not usual.head.weight.equal(result.model.head.weight)
