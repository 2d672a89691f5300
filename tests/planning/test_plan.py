"""Plans: figures that can be counted by hand, what decides them, the search for a batch, the command."""

from __future__ import annotations

import json

import pytest

from iir_fast.app.cli import main
from iir_fast.planning import GIB, LargestBatch, MemoryPlan, TrainingSetup, largest_batch, plan, tabulate

BATCH, CLASSES = 4, 10
SMALL = TrainingSetup("small_cnn", image_size=64, classes=CLASSES, hidden=None, precision="fp32")
# Of the small CNN's four convolutions: channels in and out, side of what they make of 64x64 images.
LAYERS = [(3, 16, 32), (16, 32, 16), (32, 64, 16), (64, 64, 16)]
KERNELS = sum(9 * inputs * outputs for inputs, outputs, _ in LAYERS)
NORMS = sum(2 * outputs for _, outputs, _ in LAYERS)
PARAMETERS = KERNELS + NORMS + 2 * CLASSES * 64 + 2 * CLASSES
PIXELS = BATCH * sum(outputs * side**2 for _, outputs, side in LAYERS)
IMAGES = BATCH * 3 * 64**2
FEATURES = BATCH * 64 * 16**2


def replaced(**changes: object) -> TrainingSetup:
    return TrainingSetup(**{**vars(SMALL), **changes})


@pytest.fixture(scope="module")
def small() -> MemoryPlan:
    return plan(SMALL, BATCH)


def test_what_is_held_from_step_to_step(small):
    # Running mean, variance and a count of each batch norm; a prototype of each class, and whether it was seen.
    buffers = 4 * NORMS + 8 * len(LAYERS) + CLASSES * (4 * 64 + 1)
    assert small.parameters == 4 * PARAMETERS + buffers
    assert small.gradients == small.optimizer == 4 * PARAMETERS
    assert plan(replaced(optimizer="adamw"), BATCH).optimizer == 8 * PARAMETERS


def test_activations_in_float32(small):
    # A convolution's result for the batch norm, with mean and deviation; that one's, which ReLU overwrites.
    assert small.activations == 4 * (IMAGES + 2 * PIXELS + NORMS)


def test_activations_under_autocast():
    # Beside the images all of it is in two bytes, with copies of the images and of the convolutions' weights.
    found = plan(replaced(precision="bf16"), BATCH).activations
    assert found == 4 * IMAGES + 2 * (IMAGES + KERNELS + 2 * PIXELS + NORMS)
    assert plan(replaced(precision="fp16"), BATCH).activations == found


def test_head_and_loss_hold_one_gradient_of_the_features(small):
    # The rest is small maps and descriptors; few channels make them large here.
    assert 0 < small.head_and_loss - 4 * FEATURES < 0.4 * 4 * FEATURES


def test_totals_take_the_larger_backward_pass():
    sizes = {"batch": 1, "parameters": 1, "gradients": 20, "optimizer": 300, "activations": 4000}
    made = MemoryPlan(**sizes, head_and_loss=50000, head_and_loss_without=70000, backbone_backward=60000)
    assert (made.total, made.total_without) == (64321, 74321)
    made = MemoryPlan(**sizes, head_and_loss=50000, head_and_loss_without=70000, backbone_backward=10000)
    assert (made.total, made.total_without) == (54321, 74321)


def test_what_costs_more(small):
    branches = plan(replaced(hidden=64), BATCH)
    assert branches.head_and_loss > small.head_and_loss
    assert branches.activations == small.activations
    ranks = plan(replaced(ranks=1024), BATCH)
    # In float32 and of both classifiers: foreground, background, their gradients, the unit vectors of the background,
    # and what foregrounds are held against, or one more while the gradient of the background is made.
    assert ranks.head_and_loss == pytest.approx(1024 * BATCH * 64 * 12 * 4, rel=0.1)
    assert ranks.head_and_loss_without == small.head_and_loss_without
    assert small.head_and_loss_without > 1.5 * small.head_and_loss


def test_a_transformer():
    found = plan(TrainingSetup("vit_tiny_patch16_224", classes=CLASSES, optimizer="adamw"), 2)
    assert found.optimizer == 2 * found.gradients
    assert found.total > found.activations > 2 * 12 * 196 * 192


@pytest.mark.parametrize("memory", [8 << 20, 100 << 20, 1 << 30])
def test_the_largest_batch_fits_and_one_more_does_not(memory):
    with_kernels, without_kernels = largest_batch(SMALL, memory)
    assert plan(SMALL, with_kernels).total <= memory < plan(SMALL, with_kernels + 1).total
    assert plan(SMALL, without_kernels).total_without <= memory < plan(SMALL, without_kernels + 1).total_without
    assert without_kernels <= with_kernels


def test_where_not_even_one_image_fits():
    assert largest_batch(SMALL, 1 << 20) == LargestBatch(0, 0)


def test_the_table_is_markdown_in_gib():
    sizes = {name: GIB * (number + 1) for number, name in enumerate(MemoryPlan.__dataclass_fields__)}
    lines = tabulate([MemoryPlan(**{**sizes, "batch": 256})]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| batch | parameters | gradients | optimizer | activations |")
    assert lines[2] == "| 256 | 2.00 | 3.00 | 4.00 | 5.00 | 8.00 | 6.00 | 22.00 | 7.00 | 22.00 |"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "resnet5"}, "Unknown backbone 'resnet5'"),
        ({"output_stride": 3}, "output_stride of this map of 'small_cnn' must be one of"),
        ({"backbone": "vgg16", "image_size": 8}, "image_size is 8; vgg16 cannot read it"),
        ({"ranks": 0}, "ranks is 0; accepted is 1 or more"),
        ({"classes": 0}, "classes is 0; accepted is 1 or more"),
    ],
)
def test_a_setup_that_cannot_be_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        plan(replaced(**change), BATCH)


def test_a_batch_of_nothing_is_named():
    with pytest.raises(ValueError, match="batch is 0; accepted is 1 or more"):
        plan(SMALL, 0)


SMALL_OPTIONS = ["--backbone", "small_cnn", "--image-size", "64", "--classes", "10", "--batch", "4"]
SMALL_OPTIONS += ["--hidden", "None", "--precision", "fp32"]


@pytest.mark.slow
def test_the_command(small, cli):
    command = ["plan", *SMALL_OPTIONS, "--memory", "0.01"]
    printed = cli(*command).stdout
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert rows == tabulate([small]).splitlines()
    assert "backbone small_cnn, image_size 64" in printed
    found = json.loads(cli(*command, "--json").stdout)
    assert found["plans"] == [small.to_dict()]
    assert found["setup"] == vars(SMALL)
    largest = found["largest_batch"]
    assert (
        f"in 0.01 GiB: {largest['with_kernels']} with this package's kernels, {largest['without_kernels']} without"
        in (printed)
    )


def test_the_command_takes_a_recipe(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: cam\nimage_size: 32\nhidden: 8\noptimizer: lamb\nprecision: fp16\nlearning_rate: 1e-3\n")
    main(["plan", "--recipe", str(recipe), "--image-size", "64", "--classes", "10", "--batch", "4", "--json"])
    found = json.loads(capsys.readouterr().out)
    setup = replaced(hidden=8, precision="fp16", optimizer="lamb")
    assert found["setup"] == vars(setup)
    assert found["plans"] == [plan(setup, 4).to_dict()]
    recipe.write_text("optimizer: adan")
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--recipe", str(recipe)])
    assert "mine.yaml: optimizer is 'adan'; accepted is sgd, adamw, lars, lamb." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([*SMALL_OPTIONS, "--memory", "0.001"], "memory is 0.001 GiB; one image per device takes 0.0"),
        (["--backbone", "resnet5"], "Unknown backbone 'resnet5'. Did you mean resnet50"),
    ],
)
def test_what_the_command_cannot_do_is_said_in_a_sentence(options, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *options])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "nan"], "memory is nan; accepted is a number of GiB above 0, and below a million."),
        (["--memory", "inf"], "memory is inf; accepted is"),
        (["--image-size", "9" * 30], "no step can be laid out of TrainingSetup"),
        (["--hidden", "9" * 30], "no step can be laid out of TrainingSetup"),
        (["--batch", "9" * 30], "no step can be laid out of TrainingSetup"),
    ],
)
def test_numbers_beyond_any_machine_are_refused_in_one_line(options, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--backbone", "small_cnn", *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
