"""Everything that decides a training run, in one record of parts that is written beside its results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from iir_fast.app.files import one_line, read_text
from iir_fast.data import PROCEDURAL, ProceduralRecipe, absolute_source
from iir_fast.methods import METHODS, Method
from iir_fast.training.options import from_options, read_yaml
from iir_fast.training.parts import Execution, Images, Model, Optimization, Saving

DEFAULT_METHOD = "iir"
EARLIER = (
    *("intra_weight", "inter_weight", "regulation", "temperature", "threshold"),
    *("has_grid", "has_rate", "acol_threshold", "spg_high", "spg_low"),
    *("adl_rate", "adl_threshold", "cutmix_beta", "cutmix_rate"),
)
"""Options of methods as earlier versions wrote all of them into every run's folder; the first five were IIR's."""
LARGEST = 2**31 - 1
"""The largest whole number that any option may be."""
GONE = {"hard": False}
"""Options that are gone, with the value that files of earlier versions may still give them."""

RENAMED = {"head_rate": "head_lr_mult", "average_decay": "ema_decay"}
"""Options of earlier versions that have another name now."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the demo's data and network.

    An option goes by its name alone: `--epochs 3` on the command line, `epochs: 3` in YAML, where it may also stand in
    its part, `optimization: {epochs: 3}`, and `TrainConfig().with_options(epochs=3)` in Python. So do the options of
    the method: `--method has --grid 16`, `method: {name: has, grid: 16}`.
    """

    data: str = PROCEDURAL
    """"procedural" for the embedded data set, a folder of one's own images, by class (photos/cat/1.jpg, or
    photos/train/cat/1.jpg and photos/test/cat/2.jpg) or with train.csv (and test.csv to be evaluated on), or cub:ROOT,
    ilsvrc:ROOT, openimages:ROOT, pet:ROOT, images:ROOT, shards:ROOT."""
    seed: int = 0
    """Seed of initialization and batches, and of the images held out to test on where one's own have no test split."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    method: Method = field(default_factory=METHODS[DEFAULT_METHOD])
    """Options of the method."""
    images: Images = field(default_factory=Images)
    """The images, and how they are read."""
    embedded: ProceduralRecipe = field(default_factory=ProceduralRecipe)
    """How hard the embedded data are."""
    model: Model = field(default_factory=Model)
    """The network."""
    optimization: Optimization = field(default_factory=Optimization)
    """Batches, the optimizer and its schedule."""
    execution: Execution = field(default_factory=Execution)
    """How a step is carried out."""
    saving: Saving = field(default_factory=Saving)
    """What is written on the way."""

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise ValueError(f"method is {self.method!r}; accepted is one of iir_fast.methods, such as HaS(grid=16).")
        for name, value in self.options().items():
            if type(value) is int and abs(value) > LARGEST:
                raise ValueError(f"{name} is {value}; accepted is {LARGEST} at most.")
        images, model, method = self.images, self.model, self.method
        if method.guides_maps and model.freeze_backbone and model.hidden is None:
            raise ValueError(
                f"method {method.name} with a frozen backbone needs hidden: without, nothing that it guides is trained."
            )
        if self.execution.compile and method.hooks_backbone:
            raise ValueError(
                f"compile is set for method {method.name}, which hooks the backbone at every step; leave it out."
            )
        if self.caches_features and (images.flip or images.crop):
            name, done = ("flip", "mirrored") if images.flip else ("crop", "cropped")
            raise ValueError(f"{name} is set together with freeze_backbone; cached features cannot be {done}.")
        if self.data != PROCEDURAL and (images.train_images or images.test_images):
            raise ValueError('train_images and test_images are for data = "procedural" only.')
        if self.data != PROCEDURAL and self.embedded != ProceduralRecipe():
            raise ValueError('hue_noise, head_contrast and clutter are for data = "procedural".')

    @property
    def caches_features(self) -> bool:
        """Whether training reads cached features in place of images."""
        return self.model.freeze_backbone and not self.method.changes_inputs

    def options(self) -> dict[str, Any]:
        """Return every option by its name, those of the parts and of the method among them; `method` is the method's
        name."""
        parts = [getattr(self, part) for part in PARTS]
        inside = {each.name: getattr(part, each.name) for part in parts for each in fields(part)}
        return {name: getattr(self, name) for name in TOP} | {"method": self.method.name} | inside

    def with_options(self, **options: Any) -> TrainConfig:
        """Change `options`, given as to `from_options`; a method comes with its defaults."""
        given, kept = flat_options(options), self.options()
        if "method" in given:
            kept = {name: value for name, value in kept.items() if name in HOMES}
        return self.from_options(kept | given)

    def absolute(self) -> TrainConfig:
        """Name data, weights and cache by absolute paths: the same from any folder. "~" is the home folder."""
        cache, weights = self.images.feature_cache, Path(self.model.weights).expanduser()
        is_file = bool(weights.suffix) and weights.is_file()  # the words for other weights have no suffix
        return replace(
            self,
            data=absolute_source(self.data),
            images=replace(self.images, feature_cache=cache and Path(os.path.abspath(cache.expanduser()))),
            model=replace(self.model, weights=os.path.abspath(weights)) if is_file else self.model,
        )

    def to_yaml(self) -> str:
        """Write all options, part by part."""
        plain = asdict(self)
        plain["method"] = {"name": self.method.name} | plain["method"]
        if self.images.feature_cache is not None:
            plain["images"]["feature_cache"] = str(self.images.feature_cache)
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, origin: str = "configuration") -> TrainConfig:
        """Read what `to_yaml` wrote, in this version or an earlier one, or a part of it; the rest has its defaults.

        Args:
            text: a mapping of options to values.
            origin: what errors call the text, e.g. the file's name.

        Raises:
            ValueError: the text is no mapping, or as `from_options`.
        """
        return cls.from_options(read_yaml(text, origin), origin)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], origin: str = "configuration") -> TrainConfig:
        """Make a configuration out of some options; those that are not given have their defaults.

        Args:
            options: values as YAML gives them, by name or part by part.
            origin: what errors call the options' source.

        Raises:
            ValueError: an option does not exist, belongs to another part or method, has a value of another type, or is
                refused by its part.
        """
        given = flat_options(options, origin)
        name = given.pop("method", DEFAULT_METHOD)
        if name not in list(METHODS):  # what YAML gives need not be hashable
            raise ValueError(f"{origin}: method is {name!r}; accepted are {', '.join(METHODS)}.")
        homes = HOMES | {each.name: "method" for each in fields(METHODS[name])}
        if unknown := sorted(str(option) for option in given if option not in homes):
            if reason := other_home(unknown[0]):
                raise ValueError(f"{origin} names {one_line(unknown[:1])}, which {reason}; method is {name}.")
            raise ValueError(f"{origin} names {one_line(unknown)}; known options are {', '.join(sorted(homes))}.")
        values = {option: value for option, value in given.items() if option in TOP}
        for part, record in (PARTS | {"method": METHODS[name]}).items():
            inside = {option: value for option, value in given.items() if homes[option] == part}
            values[part] = from_options(record, inside, origin)
        return from_options(cls, values, origin)


PARTS: dict[str, Any] = {
    each.name: each.default_factory for each in fields(TrainConfig) if each.default_factory is not MISSING
}
"""Every part and the record that it is; the method's is that of the default one."""
TOP = [each.name for each in fields(TrainConfig) if each.name not in PARTS]
"""Options that belong to no part."""
HOMES = dict.fromkeys(TOP, "") | {
    each.name: part for part, record in PARTS.items() if part != "method" for each in fields(record)
}
"""Every option but a method's, and the part it belongs to."""


def flat_options(options: Mapping[str, Any], origin: str = "configuration") -> dict[str, Any]:
    """Give options their names alone, out of those that may stand in parts; `method` becomes the method's name.

    Args:
        options: values as YAML gives them. Those of earlier versions get their names of today, and of all methods'
            options that those wrote, the method's own are kept.
        origin: what errors call the options' source.

    Raises:
        ValueError: an option is there twice, or stands in a part that it does not belong to.
    """
    for name, value in GONE.items():
        if options.get(name, value) != value:
            raise ValueError(f"{origin}: {name} is {options[name]!r}; the option is gone, leave it out.")
    options = {name: value for name, value in options.items() if name not in GONE}
    if options.keys() >= set(EARLIER):
        method = str(options.get("method"))
        own = EARLIER[:5] if method == "iir" else [name for name in EARLIER if name.startswith(f"{method}_")]
        kept = {name: value for name, value in options.items() if name not in EARLIER}
        options = kept | {name.removeprefix(f"{method}_"): options[name] for name in own}
    found: dict[str, Any] = {}
    for part, value in options.items():
        inside = {RENAMED.get(part, part): value}
        if part in PARTS and isinstance(value, Mapping):
            inside = {RENAMED.get(name) or name: each for name, each in value.items()}
            if strangers := [name for name in inside if HOMES.get(name, "method") != part or name == "method"]:
                raise ValueError(f"{origin}: {part} names {one_line(strangers)}, which it does not have.")
            if part == "method" and "name" in inside:
                inside["method"] = inside.pop("name")
        if twice := [name for name in inside if name in found]:
            raise ValueError(f"{origin} names {one_line(twice)} twice.")
        found |= inside
    return found


def read_recipe(file: Path) -> dict[str, Any]:
    """Read the options of a recipe by their names alone, as `flat_options` gives them.

    Raises:
        OSError, ValueError: the file cannot be read, or is no YAML of options; the message names it.
    """
    return flat_options(read_yaml(read_text(file), str(file)), str(file))


def other_home(option: str) -> str | None:
    """Tell which methods have an `option`, or what an earlier one is now, as the end of a sentence, if any."""
    if option in RENAMED:
        return f"is now {RENAMED[option]}"
    options = {name: [each.name for each in fields(method)] for name, method in METHODS.items()}
    if owners := [name for name in METHODS if option in options[name]]:
        return f"is an option of method {' and '.join(owners)}"
    method, _, new = option.partition("_")
    return f"is now {new}, an option of method {method}" if new in options.get(method, ()) else None
