"""Recipes under configs/ train for two steps, and the methods of a data set and backbone have one budget."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from iir_fast.models import CheckpointFolder
from iir_fast.training import TrainConfig, train

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(file for data in ("cub", "ilsvrc") for file in (CONFIGS / data).glob("*.yaml"))
METHODS = ("cam", "has", "acol", "spg", "adl", "cutmix", "iir")


def named(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


# The other recipes for ILSVRC are those for CUB with other numbers, as a test sees to.
TRAINED = [file for file in RECIPES if file.parent.name == "cub" or "_iir" in file.stem]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two classes, larger than what the network reads and not square."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), np.uint8)).save(root / f"{i}.png")
    (root / "train.csv").write_text("path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("file", TRAINED, ids=named)
def test_two_steps(file, data, tmp_path, monkeypatch):
    kept = {}

    # Half a gigabyte in each checkpoint of a ResNet-50 and its momenta.
    def keep(self, step, spec, model, training, keep):
        kept.update(training)

    monkeypatch.setattr(CheckpointFolder, "save", keep)
    recipe = TrainConfig.from_yaml(file.read_text(), str(file))
    trial = {"weights": "random", "image_size": 64, "classes_per_batch": 2, "images_per_class": 2, "workers": 0}
    result = train(replace(recipe, data=str(data), max_steps=2, **trial), tmp_path / "run")
    assert kept["step"] == 2
    assert file.stem.startswith(result.spec.backbone.partition(".")[0])
    assert all(parameter.isfinite().all() for parameter in result.model.parameters())


def test_there_is_a_recipe_for_every_row():
    expected = {
        f"{data}/{backbone}_{method}"
        for data in ("cub", "ilsvrc")
        for backbone in ("vgg16", "inception_v3", "resnet50")
        for method in METHODS
    } | {f"ilsvrc/{backbone}_iir_large_batch" for backbone in ("vgg16", "inception_v3", "resnet50")}
    assert {named(file) for file in RECIPES} == expected


def test_recipes_for_ilsvrc_are_those_for_cub_with_another_budget():
    for file in RECIPES:
        if file.parent.name == "cub":
            cub, ilsvrc = (TrainConfig.from_yaml(each.read_text()) for each in (file, CONFIGS / "ilsvrc" / file.name))
            budget = {name: getattr(cub, name) for name in ("epochs", "decay_epochs", "weight_decay")}
            assert replace(ilsvrc, **budget) == cub


def test_methods_differ_in_their_name_alone():
    budgets = defaultdict(list)
    for file in RECIPES:
        options = yaml.safe_load(file.read_text())
        if not file.stem.endswith("large_batch"):
            method = options.pop("method")
            assert file.stem.endswith(f"_{method}")
            budgets[file.parent.name, options["backbone"]].append(options)
    assert len(budgets) == 6
    assert all(options == group[0] for group in budgets.values() for options in group)


@pytest.mark.slow
def test_the_command_line_goes_before_the_recipe(cli, data, tmp_path):
    folder = tmp_path / "run"
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: cam\nhidden: 8\nclasses_per_batch: 2\nimages_per_class: 2\nlearning_rate: 1e-3\n")
    refused = cli("train", folder, "--recipe", recipe, code=2).stderr
    assert "mine.yaml leaves the data to you; name them with --data" in refused
    cli("train", folder, "--recipe", recipe, "--data", data, "--hidden", 4, "--max-steps", 1)
    kept = TrainConfig.from_yaml((folder / "config.yaml").read_text())
    expected = TrainConfig(str(data), "cam", hidden=4, classes_per_batch=2, images_per_class=2, learning_rate=1e-3)
    assert kept == replace(expected, max_steps=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoks: 3", "mine.yaml names epoks; known options are"),
        ("epochs: many", "mine.yaml: epochs is 'many'; accepted is a whole number."),
        ("schedule: step", "mine.yaml: schedule is 'step' and decay_epochs None"),
    ],
)
def test_faults_of_a_recipe_end_with_a_sentence(text, words, tmp_path, capsys):
    from iir_fast.app.cli import main

    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(tmp_path / "run"), "--recipe", str(tmp_path / "mine.yaml"), "--data", "procedural"])
    assert words in capsys.readouterr().err
