"""The training loop: same bits, resumption, frozen backbones, what a method hands over."""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.progress import Progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iir_fast.data import ProceduralDataset
from iir_fast.methods import CAM, IIR, Learner
from iir_fast.models import NetworkSpec, read_checkpoint
from iir_fast.training import IfExists, Interrupted, RunFolder, TrainConfig, Validated, train
from iir_fast.training.update import Updater

TINY = TrainConfig().with_options(
    train_images=80, test_images=20, epochs=2, classes_per_batch=4, images_per_class=4, hidden=8
)


def weights_after(config: TrainConfig, root: Path, if_exists: IfExists = "refuse") -> dict[str, torch.Tensor]:
    return train(config, root, if_exists).model.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_an_earlier_version_goes_on_with_plain_cams(tmp_path):
    config = TINY.with_options(checkpoint_every=5)
    train(config, tmp_path / "run")
    first, last = sorted((tmp_path / "run/checkpoints").glob("*.pt"))
    last.unlink()
    content = torch.load(first, weights_only=True)
    assert content["spec"].pop("class_mean") == 0.75
    torch.save(content, first)
    found = train(config, tmp_path / "run", "resume")
    assert (found.spec.class_mean, found.model.head.class_mean) == (1.0, 1.0)
    assert read_checkpoint(last)[0].class_mean == 1.0


@pytest.mark.parametrize("method", ["cam", "iir"])
def test_same_seed_same_bits_other_seed_other_weights(method, tmp_path):
    config = TINY.with_options(method=method)
    first, second, other = (
        weights_after(config.with_options(seed=seed), tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))
    )
    assert_same(first, second)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert first["prototypes.seen"].all()


def test_the_two_methods_differ(tmp_path):
    cam = weights_after(TINY.with_options(method="cam"), tmp_path / "cam")
    iir = weights_after(TINY.with_options(method="iir"), tmp_path / "iir")
    assert not torch.equal(cam["head.weight"], iir["head.weight"])
    assert not list((tmp_path / "iir").glob("events.out.tfevents.*")), "nobody asked for a tracker"


def test_the_bar_and_the_scalars_say_who_starves(tmp_path, monkeypatch):
    notes, read = [], ProceduralDataset.__getitem__
    show = Progress.update

    def read_slowly(self, i):
        time.sleep(0.01)
        return read(self, i)

    def note(self, *arguments, **fields):
        notes.append(fields.get("note"))
        show(self, *arguments, **fields)

    monkeypatch.setattr(ProceduralDataset, "__getitem__", read_slowly)
    monkeypatch.setattr(Progress, "update", note)
    train(TINY.with_options(epochs=1, log_every=5, tracker="tensorboard"), tmp_path / "run")
    shown = next(note for note in notes if note)
    rates = dict(re.findall(r"(model|data) ([\d,]+)/s", shown))
    assert set(rates) == {"model", "data"}
    assert 0 < int(rates["data"].replace(",", "")) <= 100, "loading alone takes 10 ms an image"
    log = EventAccumulator(str(tmp_path / "run")).Reload()
    rated = {"images_per_second/model", "images_per_second/data", "gradient_norm", "learning_rate"}
    assert {f"loss/{term}" for term in ("total", "classification", "intra", "inter")} | rated <= set(
        log.Tags()["scalars"]
    )
    (norm,) = log.Scalars("gradient_norm")
    assert norm.step == 5
    assert norm.value > 0


def test_a_damaged_checkpoint_is_named_and_the_one_before_gone_on_from(tmp_path, capsys):
    config = TINY.with_options(checkpoint_every=2)
    expected = weights_after(config, tmp_path / "run")
    newest = RunFolder(tmp_path / "run").checkpoints.files()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert_same(weights_after(config, tmp_path / "run", "resume"), expected)
    said = " ".join(capsys.readouterr().err.split())
    assert "00000010.pt cannot be read" in said
    assert "00000008.pt. resumed at step 8 of 10." in said


@pytest.mark.parametrize(
    "change",
    [
        lambda training: {name: value for name, value in training.items() if name != "step"},
        lambda training: {"rng": training["rng"]},
        lambda training: {**training, "rng": [None]},
        lambda training: {**training, "optimizer": {}},
        lambda training: {**training, "weights": {"head.bias": 3}},
        lambda training: [training],
        lambda training: {},
    ],
)
def test_a_training_state_of_something_else_is_named(change, tmp_path):
    config = TINY.with_options(max_steps=1)
    train(config, tmp_path / "run")
    file = RunFolder(tmp_path / "run").checkpoints.files()[-1]
    content = torch.load(file, weights_only=True)
    torch.save({**content, "training": change(content["training"])}, file)
    with pytest.raises(
        ValueError, match=rf"^checkpoint {file} holds no training state (of such a run: .*|to resume from)\.$"
    ):
        train(config, tmp_path / "run", "resume")


def test_a_full_disk_ends_training_with_a_sentence(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"00000005\.pt could not be written \(No space left on device\)"):
        train(TINY, tmp_path / "run")


STEPS = {
    "optimizer": "sgd",
    "schedule": "step",
    "decay_epochs": 1,
    "warmup_epochs": 1,
    "head_lr_mult": 10.0,
    "crop": True,
}


@pytest.mark.parametrize(
    ("options", "number"),
    [({}, signal.SIGINT), ({"freeze_backbone": True}, signal.SIGTERM), (STEPS, signal.SIGINT)],
    ids=["images", "features", "steps"],
)
def test_a_signal_leaves_a_checkpoint_and_resuming_gives_the_same_bits(options, number, tmp_path, monkeypatch):
    config = TINY.with_options(feature_cache=tmp_path / "cache", epochs=3, **options)
    expected = weights_after(config, tmp_path / "whole")

    # Ignored, where a shell started the tests in the background.
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    steps = []
    update = Updater.update

    def update_and_interrupt(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 7:
            os.kill(os.getpid(), number)
        return update(self, *arguments, **options)

    monkeypatch.setattr(Updater, "update", update_and_interrupt)
    folder = tmp_path / "cut"
    with pytest.raises(Interrupted, match="step 7 of 15"):
        train(config, folder)
    assert RunFolder(folder).checkpoints.newest().training["step"] == 7
    assert_same(weights_after(config, folder, "resume"), expected)
    assert len(steps) == 15
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_max_steps_ends_training_early_under_the_schedule_of_all_epochs(tmp_path):
    states = []
    for max_steps in (7, None):
        folder = tmp_path / str(max_steps)
        config = TINY.with_options(epochs=3, max_steps=max_steps)
        train(config, folder)
        states.append(RunFolder(folder).checkpoints.newest().training)
    assert [state["step"] for state in states] == [7, 15]
    assert states[0]["schedule"]["total_steps"] == states[1]["schedule"]["total_steps"] == 16


def test_outside_the_main_thread_it_trains_without_a_signal_handler(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(TINY.with_options(epochs=1), tmp_path / "run")))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_a_frozen_backbone_stays_as_it_was(tmp_path):
    config = TINY.with_options(freeze_backbone=True, feature_cache=tmp_path / "cache")
    torch.manual_seed(config.seed)
    fresh = NetworkSpec("small_cnn", tuple("abcdefghij"), 64, hidden=8).build().backbone.state_dict()
    after = train(config, tmp_path / "run").model.backbone.state_dict()
    assert_same(fresh, after)


def test_regulation_waits_for_the_classifiers():
    torch.manual_seed(0)
    model = NetworkSpec("small_cnn", tuple("ab"), 32, hidden=8).build()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 0, 0])
    method = IIR()
    with torch.no_grad():
        model.head.weight.zero_()
    regulation = []
    for sure in (0.0, 0.05, 9.0):
        with torch.no_grad():
            model.head.bias.copy_(torch.tensor([[sure, 0.0], [sure, 0.0]]))
        cam = Learner(CAM(), model)(images, labels)
        assert not cam.foreground.requires_grad
        regulation.append((Learner(method, model)(images, labels).loss - cam.loss).item())
    whole = method.loss_fn(model.head(model.backbone(images), labels)).item()
    assert regulation[0] == 0 < whole
    # With two classes p = sigmoid(0.05), and (2 p - 1) / (2 - 1) = tanh(0.025).
    assert regulation[1] == pytest.approx(8 * math.tanh(0.025) * whole, rel=1e-3)
    assert regulation[2] == pytest.approx(whole, rel=1e-5)


def write_photos(root: Path, counts: dict[str, int]) -> str:
    """Class folders; every image has another colour."""
    for name, count in counts.items():
        for i in range(count):
            file = root / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (20 * i % 256, 40 * len(name) % 256, 90)).save(file)
    return str(root)


PHOTOS = TrainConfig().with_options(epochs=2, hidden=8, image_size=16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"images_per_class": 1},
        {"classes_per_batch": 1, "images_per_class": 1},
        {"classes_per_batch": 1},
        {"method": "cutmix"},
        {"freeze_backbone": True},
        {"accumulate": 3},
    ],
)
@pytest.mark.parametrize("counts", [{"train/ant": 1, "train/bee": 1}, {"train/ant": 1, "train/bee": 5}])
def test_few_images_train_whatever_the_batch(options, counts, tmp_path, capsys):
    data = write_photos(tmp_path / "photos", counts)
    config = PHOTOS.with_options(data=data, feature_cache=tmp_path / "cache", **options)
    result = train(config, tmp_path / "run")
    assert all(weight.isfinite().all() for weight in result.model.state_dict().values())
    said = "classes_per_batch is 2, not 8: there are no more classes." in capsys.readouterr().err
    assert said == ("classes_per_batch" not in options)
    # As it was asked for: the same command resumes.
    RunFolder(tmp_path / "run").check(config, "resume")


@pytest.mark.parametrize("counts", [{"train/ant": 5}, {"train/ant": 1}, {"ant": 5}])
def test_one_class_is_refused_before_anything_is_made(counts, tmp_path):
    data = write_photos(tmp_path / "photos", counts)
    with pytest.raises(ValueError, match=r"data are .*photos, whose training images are of one class; a localizer"):
        train(PHOTOS.with_options(data=data, freeze_backbone=True, feature_cache=tmp_path / "cache"), tmp_path / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5])
def test_any_number_of_updates_trains(epochs, tmp_path):
    data = write_photos(tmp_path / "photos", {f"train/{name}": 1 for name in "abcdefgh"})
    train(PHOTOS.with_options(data=data, epochs=epochs), tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints.newest().training["step"] == epochs


def test_a_size_that_the_backbone_cannot_read_is_said_before_anything_is_written(tmp_path):
    config = TINY.with_options(backbone="test_vit", image_size=40)
    with pytest.raises(ValueError, match="'test_vit' cannot read 40x40 images"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_will_be_evaluated_is_looked_at_before_the_first_step(tmp_path):
    data = write_photos(tmp_path / "photos", {"train/ant": 2, "train/bee": 2})
    root = Path(data)
    (root / "train.csv").write_text("path,label\ntrain/ant/0.png,ant\ntrain/bee/0.png,bee\n")
    config = PHOTOS.with_options(data=data)
    for row, words in (
        ("train/ant/1.png,ant,0,0,17,5", r"test\.csv, line 2: the box 0,0,17,5 leaves its image, 16 x 16 pixels"),
        ("train/ant/9.png,ant,0,0,5,5", r"The image train/ant/9\.png cannot be read: No such file or directory"),
        ("train/ant/1.png,owl,0,0,5,5", r"test\.csv, line 2: label 'owl' is none of the 2 classes"),
    ):
        (root / "test.csv").write_text(f"path,label,x0,y0,x1,y1\n{row}\n")
        with pytest.raises(ValueError, match=words):
            train(config, tmp_path / "run", evaluated=("test",))
    with pytest.raises(FileNotFoundError, match=r"val\.csv, which does not exist"):
        train(config, tmp_path / "run", evaluated=("val",))
    (root / "train.csv").write_text("path,label\ntrain/ant/0.png,ant\ntrain/bee/9.png,bee\n")
    with pytest.raises(ValueError, match=r"train/bee/9\.png cannot be read: No such file"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_that_fails_loses_nothing_and_is_made_up_for(tmp_path):
    calls = []

    def fails(model, spec):
        calls.append(model.head.weight.clone())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        train(TINY, tmp_path / "run", validate=fails)
    assert RunFolder(tmp_path / "run").checkpoints.newest().training["step"] == 5

    def measures(model, spec):
        calls.append(model.head.weight.clone())
        return Validated(float(len(calls)))

    train(TINY, tmp_path / "run", "resume", validate=measures)
    assert len(calls) == 3
    assert torch.equal(calls[0], calls[1])
    last = RunFolder(tmp_path / "run").checkpoints.newest().training
    assert (last["step"], last["best"]) == (10, 3.0)
    train(TINY, tmp_path / "run", "resume", validate=measures)
    assert len(calls) == 3
    plain = train(TINY, tmp_path / "plain", validate=lambda model, spec: Validated(0.0)).model.state_dict()
    assert_same(plain, train(TINY, tmp_path / "run", "resume").model.state_dict())


def test_what_a_validation_draws_changes_no_bit_of_training(tmp_path):
    drawn = []

    def draws(model, spec):
        drawn.append(torch.rand(100))
        return Validated(0.0)

    config = TINY.with_options(method="cutmix")
    validated = train(config, tmp_path / "validated", validate=draws).model.state_dict()
    assert len(drawn) == 2
    assert_same(validated, weights_after(config, tmp_path / "plain"))


def test_the_best_checkpoint_outlives_a_resumption(tmp_path):
    figures = iter([2.0])

    def measures(model, spec):
        try:
            return Validated(next(figures))
        except StopIteration:
            raise ValueError("no more") from None

    config = TINY.with_options(epochs=3)
    with pytest.raises(ValueError, match="no more"):
        train(config, tmp_path / "run", validate=measures)
    train(config, tmp_path / "run", "resume", validate=lambda model, spec: Validated(1.0))
    folder = RunFolder(tmp_path / "run").checkpoints
    assert folder.newest().training["best"] == 2.0
    assert read_checkpoint(folder.best)[2]["step"] == 5


def test_cuda_without_a_device_is_a_sentence(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(RuntimeError, match='device is "cuda"'):
        train(TINY.with_options(device="cuda"), tmp_path / "run")
