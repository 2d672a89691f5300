"""Recipes under configs/ train for two steps under every method, and their README has the command of every row."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from iir_fast.app.cli import main
from iir_fast.app.commands.train import Train
from iir_fast.methods import METHODS
from iir_fast.models import CheckpointFolder
from iir_fast.training import TrainConfig, train

CONFIGS = Path(__file__).parents[1] / "configs"
BACKBONES = ("vgg16", "inception_v3", "resnet50")
RECIPES = [CONFIGS / data / f"{backbone}.yaml" for data in ("cub", "ilsvrc") for backbone in BACKBONES]
LARGE = CONFIGS / "ilsvrc" / "large_batch.yaml"


def read(file: Path, **options: object) -> TrainConfig:
    return TrainConfig.from_yaml(file.read_text(), str(file)).with_options(**options)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two classes, larger than what the network reads and not square."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), np.uint8)).save(root / f"{i}.png")
    (root / "train.csv").write_text("path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    return root


# The recipes for ILSVRC are those for CUB with other numbers, as a test sees to.
TRAINED = [(backbone, method, {}) for backbone in BACKBONES for method in METHODS]
TRAINED += [(backbone, "iir", yaml.safe_load(LARGE.read_text())) for backbone in BACKBONES]


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "method", "after"), TRAINED)
def test_two_steps(backbone, method, after, data, tmp_path, monkeypatch):
    kept = {}

    # Half a gigabyte in each checkpoint of a ResNet-50 and its momenta.
    def keep(self, step, spec, model, training, keep):
        kept.update(training)

    monkeypatch.setattr(CheckpointFolder, "save", keep)
    trial = {"weights": "random", "image_size": 64, "classes_per_batch": 2, "images_per_class": 2, "workers": 0}
    recipe = read(CONFIGS / "cub" / f"{backbone}.yaml", method=method, **after)
    result = train(recipe.with_options(data=str(data), max_steps=2, **trial), tmp_path / "run")
    assert kept["step"] == 2
    assert result.spec.backbone.partition(".")[0] == backbone
    assert all(parameter.isfinite().all() for parameter in result.model.parameters())


def test_there_is_a_recipe_for_every_data_set_and_backbone():
    assert {*CONFIGS.glob("cub/*"), *CONFIGS.glob("ilsvrc/*")} == {*RECIPES, LARGE}


def test_recipes_for_ilsvrc_are_those_for_cub_with_another_budget():
    for backbone in BACKBONES:
        cub, ilsvrc = (read(CONFIGS / data / f"{backbone}.yaml") for data in ("cub", "ilsvrc"))
        assert ilsvrc.with_options(epochs=50, decay_epochs=15, weight_decay=5e-4) == cub
        assert ilsvrc != cub


def test_the_readme_has_the_command_of_every_row(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    trained: dict[str, Train] = {}
    monkeypatch.setattr(Train, "run", lambda self: trained.update({str(self.out): self}))
    lines = re.findall("^iir-fast train .*", (CONFIGS / "README.md").read_text(), re.MULTILINE)
    for line in lines:
        main(shlex.split(line)[1:])
    assert len(lines) == len(trained) == 2 * 3 * len(METHODS) + 3
    found = set()
    for command in trained.values():
        config, (file, *after) = command.config, [CONFIGS.parent / each for each in command.recipe]
        found.add((file, config.method.name, *after))
        large = {option: value for each in after for option, value in yaml.safe_load(each.read_text()).items()}
        expected = read(file, **large).with_options(data=f"{file.parent.name}:/data", method=config.method.name)
        assert config == expected
    rows = {(file, method) for file in RECIPES for method in METHODS}
    assert found == rows | {(CONFIGS / "ilsvrc" / f"{backbone}.yaml", "iir", LARGE) for backbone in BACKBONES}


def test_a_second_recipe_goes_before_the_first_and_the_command_line_before_both(tmp_path, monkeypatch):
    found: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self: found.append(self))
    (tmp_path / "one.yaml").write_text("{method: has, grid: 16, epochs: 3, model: {hidden: 4}, seed: 1}")
    (tmp_path / "two.yaml").write_text("{epochs: 4, model: {hidden: 8}, method: {rate: 0.25}}")
    recipes = [word for name in ("one", "two") for word in ("--recipe", str(tmp_path / f"{name}.yaml"))]
    main(["train", "x", *recipes, "--data", "procedural", "--hidden", "16", "--rate", "0.75"])
    expected = {"method": "has", "grid": 16, "rate": 0.75, "epochs": 4, "hidden": 16, "seed": 1}
    assert found[0].config == TrainConfig().with_options(**expected)


def test_the_configuration_of_a_run_is_a_recipe(tmp_path, monkeypatch):
    found: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self: found.append(self))
    (tmp_path / "config.yaml").write_text(TrainConfig().with_options(method="has", grid=16, epochs=3).to_yaml())
    main(["train", "x", "--recipe", str(tmp_path / "config.yaml"), "--rate", "0.25"])
    assert found[0].config == TrainConfig().with_options(method="has", grid=16, rate=0.25, epochs=3)


@pytest.mark.slow
def test_the_command_line_goes_before_the_recipe(cli, data, tmp_path):
    folder = tmp_path / "run"
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: cam\nhidden: 8\nclasses_per_batch: 2\nimages_per_class: 2\nlearning_rate: 1e-3\n")
    refused = cli("train", folder, "--recipe", recipe, code=2).stderr
    assert "mine.yaml leaves the data to you; name them with --data" in refused
    cli("train", folder, "--recipe", recipe, "--data", data, "--hidden", 4, "--max-steps", 1)
    kept = TrainConfig.from_yaml((folder / "config.yaml").read_text())
    options = {"data": str(data), "method": "cam", "hidden": 4, "learning_rate": 1e-3, "max_steps": 1}
    assert kept == TrainConfig().with_options(**options, classes_per_batch=2, images_per_class=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoks: 3", "mine.yaml names epoks; known options are"),
        ("epochs: many", "mine.yaml: epochs is 'many'; accepted is a whole number."),
        ("schedule: step", "mine.yaml: schedule is 'step' and decay_epochs None"),
        ("{method: cam, grid: 3}", "mine.yaml names grid, which is an option of method has; method is cam."),
    ],
)
def test_faults_of_a_recipe_end_with_a_sentence(text, words, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(tmp_path / "run"), "--recipe", str(tmp_path / "mine.yaml"), "--data", "procedural"])
    assert words in capsys.readouterr().err
