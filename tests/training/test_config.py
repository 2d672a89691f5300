"""TrainConfig: names and parts, YAML round trip, files of earlier versions, refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from iir_fast.methods import CAM, METHODS, HaS
from iir_fast.training import Images, Model, Optimization, RunFolder, TrainConfig

# What version 0.1.0 in the making wrote into the folder of every run: 61 options, whatever the method.
EARLIER = yaml.safe_load("""
{data: procedural, method: iir, backbone: small_cnn, weights: random, output_stride: null, out_index: -1,
image_size: 64, hidden: 32, freeze_backbone: false, feature_cache: null, flip: false, crop: false, epochs: 5,
max_steps: null, classes_per_batch: 8, images_per_class: 8, learning_rate: 0.002, head_rate: 1.0, weight_decay: 0.0001,
optimizer: adamw, momentum: 0.9, schedule: one_cycle, warmup_epochs: 0, decay_epochs: null, decay_factor: 0.1,
intra_weight: 5.0, inter_weight: 5.0, regulation: dual, temperature: 0.1, threshold: learned, hard: false, has_grid: 44,
has_rate: 0.5, acol_threshold: 0.6, spg_high: [0.7, 0.5, 0.7], spg_low: [0.05, 0.05, 0.1], adl_rate: 0.75,
adl_threshold: 0.8, cutmix_beta: 1.0, cutmix_rate: 1.0, precision: fp32, accumulate: 1, clip: null, average_decay: null,
sync_batch_norm: false, channels_last: false, compile: false, non_finite: stop, detect_anomaly: false,
checkpoint_every: null, checkpoints: 2, log_every: 10, seed: 0, device: auto, workers: 0, skip_broken: false,
train_images: null, test_images: null, hue_noise: 0.05, head_contrast: 1.0, clutter: 1.0}
""")
OTHERS = {"backbone": "vgg16", "weights": "a.pth", "optimizer": "sgd", "regulation": "agreement", "threshold": "mean"}
OTHERS |= {"precision": "bf16", "non_finite": "skip", "device": "cpu", "schedule": "cosine", "feature_cache": "cache"}
OTHERS |= {"spg_high": [0.8, 0.6, 0.8], "spg_low": [0.1, 0.1, 0.2], "data": "photos", "has_grid": 16, "decay_epochs": 2}
OTHERS |= {"warmup_epochs": 1, "clip": 1.0, "average_decay": 0.9, "head_contrast": 0.5, "method": "cam"}
RENAMED = {"head_rate": "head_lr_mult", "average_decay": "ema_decay"}
NEEDED = {"decay_epochs": {"schedule": "step"}, "warmup_epochs": {"schedule": "cosine"}}


def other(name):
    """Another value of an option than its default."""
    value = EARLIER[name]
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    return 2 if value is None else value / 2 if isinstance(value, float) else value + 1


OF_METHODS = {
    "iir": {name: name for name in ("intra_weight", "inter_weight", "regulation", "temperature", "threshold")},
    "has": {"has_grid": "grid", "has_rate": "rate"},
    "acol": {"acol_threshold": "threshold"},
    "spg": {"spg_high": "high", "spg_low": "low"},
    "adl": {"adl_rate": "rate", "adl_threshold": "threshold"},
    "cutmix": {"cutmix_beta": "beta", "cutmix_rate": "rate"},
    "cam": {},
}
IIRS = [*OF_METHODS["iir"]]
BASELINES = [(method, old, new) for method in list(OF_METHODS)[1:] for old, new in OF_METHODS[method].items()]
SHARED = [name for name in EARLIER if name not in {"hard", *IIRS, *(old for _, old, _ in BASELINES)}]

LATER = ["raw_orientation", "tracker"]
"""Options that earlier versions did not write."""


def test_every_earlier_option_is_looked_at():
    assert len(EARLIER) == 61 == len(SHARED) + len(IIRS) + len(BASELINES) + len(["hard"])


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_an_earlier_version_loads_with_the_options_of_its_own_method(method):
    plain = TrainConfig.from_yaml(yaml.safe_dump(EARLIER | {"method": method}))
    # Its map was the deepest one.
    assert plain == TrainConfig().with_options(method=method, out_index=-1)
    changed = {name: other(name) for names in OF_METHODS.values() for name in names}
    config = TrainConfig.from_yaml(yaml.safe_dump(EARLIER | changed | {"method": method, "epochs": 3}))
    own = {new: changed[old] for old, new in OF_METHODS[method].items()}
    assert config == plain.with_options(**own, epochs=3)
    assert (config.method == plain.method) == (method == "cam")


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(EARLIER | {"method": "adl", "adl_rate": 0.5}))
    RunFolder(tmp_path).write_metrics({})
    RunFolder(tmp_path).check(TrainConfig().with_options(method="adl", rate=0.5, out_index=-1), "resume")
    with pytest.raises(ValueError, match=r"differently: rate was 0\.5 and is 0\.75\."):
        RunFolder(tmp_path).check(TrainConfig().with_options(method="adl", out_index=-1), "resume")


@pytest.mark.parametrize("name", SHARED + IIRS)
def test_an_earlier_option_is_still_read(name):
    value = other(name)
    config = TrainConfig.from_yaml(yaml.safe_dump({name: value} | NEEDED.get(name, {})))
    kept = config.options()[RENAMED.get(name, name)]
    assert kept == (Path(value) if name == "feature_cache" else value)
    assert kept != TrainConfig().options()[RENAMED.get(name, name)]
    assert TrainConfig.from_yaml(config.to_yaml()) == config


def test_an_option_that_is_gone_may_have_the_value_that_all_runs_had():
    assert TrainConfig.from_yaml("hard: false") == TrainConfig()
    with pytest.raises(ValueError, match="hard is True; the option is gone, leave it out"):
        TrainConfig.from_yaml("hard: true", "x.yaml")


@pytest.mark.parametrize("name", IIRS)
def test_an_option_of_iir_is_refused_for_another_method(name):
    with pytest.raises(ValueError, match=f"names {name}, which is an option of method iir.*; method is cam"):
        TrainConfig.from_yaml(yaml.safe_dump({"method": "cam", name: other(name)}))


@pytest.mark.parametrize(("method", "old", "new"), BASELINES)
def test_an_earlier_option_of_another_method_says_what_to_write(method, old, new):
    words = f"x.yaml names {old}, which is now {new}, an option of method {method}; method is has"
    with pytest.raises(ValueError, match=words):
        TrainConfig.from_yaml(yaml.safe_dump({"method": "has", old: other(old)}), "x.yaml")
    config = TrainConfig.from_yaml(yaml.safe_dump({"method": method, new: other(old)}))
    value = tuple(other(old)) if isinstance(other(old), list) else other(old)
    assert config.method == METHODS[method](**{new: value}) != METHODS[method]()


def test_no_option_has_two_homes():
    config = TrainConfig()
    parts = {name: value for name, value in vars(config).items() if is_dataclass(value) and name != "method"}
    shared = [*vars(config), *(each.name for part in parts.values() for each in fields(part))]
    assert len(shared) == len(SHARED) + len(LATER) + len(parts)
    for method in METHODS.values():
        own = [each.name for each in fields(method)]
        assert max(Counter([*shared, *own, "name", "recipe", "out", "resume", "overwrite", "validate"]).values()) == 1


@pytest.mark.parametrize("method", METHODS)
def test_yaml_round_trip(method):
    options = {"data": "photos", "epochs": 3, "hidden": None, "feature_cache": Path("cache"), "seed": 2}
    config = TrainConfig().with_options(method=method, **options)
    assert TrainConfig.from_yaml(config.to_yaml()) == config
    assert yaml.safe_load(config.to_yaml())["method"]["name"] == config.method.name == method


@pytest.mark.parametrize(
    "text",
    [
        "{method: has, grid: 16, epochs: 3, hidden: 8}",
        "{method: {name: has, grid: 16}, epochs: 3, model: {hidden: 8}}",
        "{method: {name: has}, grid: 16, optimization: {epochs: 3}, hidden: 8}",
        "{method: has, grid: 16, optimization: {epochs: 3}, images: {}, model: {hidden: 8}}",
    ],
)
def test_an_option_stands_at_the_top_or_in_its_part(text):
    expected = TrainConfig(method=HaS(grid=16), optimization=Optimization(epochs=3), model=Model(hidden=8))
    assert TrainConfig.from_yaml(text) == expected


def test_other_values_of_some_options():
    config = TrainConfig().with_options(method="has", grid=16, epochs=3)
    assert config.with_options(rate=0.25, model={"hidden": 8}) == TrainConfig(
        method=HaS(16, 0.25), optimization=Optimization(epochs=3), model=Model(hidden=8)
    )
    assert config.with_options(method="cam") == TrainConfig(method=CAM(), optimization=Optimization(epochs=3))
    assert config.with_options(method="has").method == HaS()
    assert config.options()["grid"] == 16
    with pytest.raises(ValueError, match="names temperature, which is an option of method iir; method is has"):
        config.with_options(temperature=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoks: 3", "names epoks; known options are .*epochs"),
        ("- 3", "no mapping"),
        ("epochs: 0", "epochs is 0"),
        ("epochs: {a: 1}", "epochs is {'a': 1}; accepted is a whole number"),
        ("optimization: 3", "names optimization; known options are"),
        ("{epochs: 3, optimization: {epochs: 3}}", "names epochs twice"),
        ("optimization: {method: has}", "optimization names method, which it does not have"),
        ("method: {name: has, method: cam}", "method names method, which it does not have"),
        ("{grid: 3, method: {name: has, grid: 3}}", "names grid twice"),
        ("optimization: {hidden: 3}", "optimization names hidden, which it does not have"),
        ("images: {grid: 3}", "images names grid, which it does not have"),
        (r'images: {"a\nb": 3}', r"images names 'a\\nb', which it does not have"),
        (r'"\n": 3', r"names '\\n'; known options are"),
        ("method: {name: has, epochs: 3}", "method names epochs, which it does not have"),
        ("method: {name: has, grod: 3}", "names grod; known options are .*grid"),
        ("method: {name: cam, grid: 3}", "names grid, which is an option of method has; method is cam"),
        ("rate: 0.5", "names rate, which is an option of method has and adl and cutmix; method is iir"),
        ("method: {name: [has]}", r"method is \['has'\]; accepted are iir, cam, has"),
        ("{method: has, grid: many}", "grid is 'many'; accepted is a whole number"),
    ],
)
def test_bad_files_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig.from_yaml(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": 1e300}, r"learning_rate is 1e\+300; accepted is a number above 0, 1e\+30 at most"),
        ({"head_lr_mult": float("inf")}, "head_lr_mult is inf"),
        ({"weight_decay": 1e300}, r"weight_decay is 1e\+300; accepted is a number from 0 to 10000"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"flip": True, "freeze_backbone": True}, "flip is set .* cannot be mirrored"),
        ({"crop": True, "freeze_backbone": True}, "crop is set .* cannot be cropped"),
        ({"head_lr_mult": 0}, "head_lr_mult is 0.0; accepted is a number above 0"),
        ({"decay_factor": 0}, "decay_factor is 0.0; accepted is a number above 0"),
        ({"clip": 0}, "clip is 0.0; accepted is a number above 0"),
        ({"temperature": 0}, "temperature is 0.0; accepted is a number above 0"),
        *(
            ({name: 0}, f"{name} is 0; accepted is 1 or more")
            for name in ("image_size", "epochs", "max_steps", "classes_per_batch", "images_per_class", "decay_epochs")
        ),
        *(
            ({name: 0}, f"{name} is 0; accepted is 1 or more")
            for name in ("accumulate", "checkpoint_every", "checkpoints", "log_every")
        ),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; accepted is a number between 0 and 1"),
        ({"optimizer": "adamv"}, "optimizer is 'adamv'; accepted are timm's, such as adamw"),
        ({"schedule": "step"}, "schedule is 'step' and decay_epochs None; decay_epochs belongs to \"step\""),
        ({"decay_epochs": 3}, "schedule is 'one_cycle' and decay_epochs 3"),
        ({"warmup_epochs": 1}, "the one_cycle schedule warms up by itself"),
        ({"warmup_epochs": 5, "schedule": "cosine"}, "warmup_epochs is 5; accepted is 0 or more and less than epochs"),
        ({"data": "photos", "train_images": 5}, "train_images"),
        ({"data": "photos", "clutter": 2.0}, "hue_noise, head_contrast and clutter are for data"),
        ({"head_contrast": 2.0}, "head_contrast must lie in"),
        ({"method": "hide"}, "method is 'hide'; accepted are iir, cam, has"),
        ({"method": "has", "rate": 3}, "HaS: rate is 3.0; accepted is a number in"),
        ({"method": "spg", "freeze_backbone": True, "hidden": None}, "spg with a frozen backbone needs hidden"),
        ({"method": "adl", "compile": True}, "compile is set for method adl, which hooks the backbone"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig().with_options(**options)


def test_what_python_gets_wrong_is_named():
    with pytest.raises(ValueError, match=r"method is 'has'; accepted is one of iir_fast.methods, such as HaS\("):
        TrainConfig(method="has")
    with pytest.raises(ValueError, match="image_size is 0"):
        Images(image_size=0)


def test_images_that_are_not_cached_may_be_mirrored():
    assert not TrainConfig().with_options(method="has", flip=True, freeze_backbone=True).caches_features


@pytest.mark.parametrize("name", ["seed", "epochs", "hidden", "image_size", "classes_per_batch"])
def test_whole_numbers_beyond_any_run_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 9+; accepted is 2147483647 at most"):
        TrainConfig().with_options(**{name: int("9" * 30)})
