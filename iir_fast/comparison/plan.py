"""What is compared: a YAML file of rows, data variants and seeds, and the runs it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from iir_fast.app.files import one_line, read_text
from iir_fast.comparison.baselines import BASELINES, Baseline
from iir_fast.comparison.published import Published, read_published
from iir_fast.evaluation import REFINEMENTS, Refinement
from iir_fast.models import MAPS, MapName
from iir_fast.training import TrainConfig, flat_options, read_yaml

KEYS = ("title", "seeds", "maps", "refinements", "base", "data", "rows", "published")
DEFAULT_MAPS = ["cam", "evidence", "both"]
Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        row: name of its row.
        variant: name of its data variant; empty where the file has none.
        seed: its seed.
        config: everything that decides it.
        folder: where it is kept, relative to the comparison's folder.
    """

    row: str
    variant: str
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """For people: row, data variant, seed."""
        return ", ".join(filter(None, (self.row, self.variant, f"seed {self.seed}")))


@dataclass(frozen=True)
class Comparison:
    """Rows x data variants x seeds.

    Attributes:
        title: heading of the table.
        maps: localization maps that every trained run is evaluated with.
        rows: names of the rows, in the order of the table.
        variants: names of the data variants, one table each; a single empty name where the file has none.
        seeds: every row runs from each of these.
        runs: seed by seed, so that an unfinished comparison has all rows early.
        text: the YAML.
        refinements: how every map is refined by its image, once in each of these ways.
        published: figures of other methods, shown below those of the rows.
        baselines: of the rows that are not trained, what is evaluated in their place.
    """

    title: str
    maps: tuple[MapName, ...]
    rows: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    text: str
    refinements: tuple[Refinement, ...] = ("none",)
    published: tuple[Published, ...] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=dict)

    def maps_of(self, row: str) -> tuple[MapName, ...]:
        """Name the maps that a row is evaluated with: a baseline has one, which stands for its CAM."""
        return ("cam",) if row in self.baselines else self.maps


def read_comparison(file: Path, data: str | None = None) -> Comparison:
    """Read the comparison that a YAML file describes.

    Its keys: `title`; `seeds`, a number n for 0 to n - 1 or a list; `maps`, a list of cam, evidence and both (all of
    them by default); `refinements`, a list of none, guided and grabcut (none by default); `base`, options of
    `TrainConfig` for every run; `data`, a mapping from names of data variants to the options that make them; `rows`, a
    mapping from names of rows to their options. A row's options go before those of a data variant, these before the
    base. Options of a method stand in rows of that method. A row with `baseline`, center or classifier, is not trained
    (`iir_fast.comparison.Baseline`). `published`, a list of what others state of their methods, each with `name`,
    `source`, figures in percent by the names of `Metrics`, and `data`, the data variant, where there are any.

    Args:
        file: the YAML file.
        data: what every run is trained on, in place of what `base` says.

    Returns:
        The comparison, with every run's configuration checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key or an option is unknown or has a wrong value; the message says where.
    """
    text = read_text(file)
    content = read_yaml(text, str(file))
    if unknown := sorted(map(str, set(content) - set(KEYS))):
        raise ValueError(f"{file} names {one_line(unknown)}; known keys are {', '.join(KEYS)}.")
    seeds = _seeds(content.get("seeds"), file)
    base = _options(content.get("base"), f"{file}, base")
    rows = _named_options(content.get("rows"), f"{file}, rows")
    variants = _named_options(content["data"], f"{file}, data") if "data" in content else {"": {}}
    if data is not None:
        if fixed := [name for name, options in (variants | rows).items() if "data" in options]:
            raise ValueError(f"data is {data!r}, but {file} sets the data of {', '.join(fixed)} itself.")
        base["data"] = data
    baselines = {
        name: _baseline(options.pop("baseline"), f"{file}, rows, {name}")
        for name, options in rows.items()
        if "baseline" in options
    }
    runs = []
    for seed in seeds:
        for variant, variant_options in variants.items():
            for row, row_options in rows.items():
                options = base | variant_options | row_options | {"seed": seed}
                where = ", ".join(filter(None, (str(file), variant, row)))
                folder = Path(_slug(variant), _slug(row), f"{baselines.get(row, '')}seed{seed}")
                runs.append(PlannedRun(row, variant, seed, TrainConfig.from_options(options, where), folder))
    return Comparison(
        str(content.get("title", file.stem)),
        _choices(content.get("maps", DEFAULT_MAPS), MAPS, f"{file}: maps"),
        tuple(rows),
        tuple(variants),
        seeds,
        tuple(runs),
        text,
        _choices(content.get("refinements", ["none"]), REFINEMENTS, f"{file}: refinements"),
        read_published(content.get("published", []), f"{file}: published", tuple(variants)),
        baselines,
    )


def _seeds(value: Any, file: Path) -> tuple[int, ...]:
    seeds = tuple(range(value)) if type(value) is int else tuple(value) if isinstance(value, list) else ()
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{file}: seeds is {value!r}; accepted is a number of 1 or more, or a list of different seeds of 0 or more."
        )
    return seeds


def _choices(value: Any, accepted: tuple[Choice, ...], where: str) -> tuple[Choice, ...]:
    if not isinstance(value, list) or not value or any(each not in accepted for each in value):
        raise ValueError(f"{where} is {value!r}; accepted is a list of {', '.join(accepted)}.")
    return tuple(dict.fromkeys(value))


def _baseline(value: Any, where: str) -> Baseline:
    if value not in BASELINES:
        raise ValueError(f"{where}: baseline is {value!r}; accepted is {' or '.join(BASELINES)}.")
    return cast(Baseline, value)


def _named_options(value: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{where} is {value!r}; accepted is a mapping from names to options, with one name at least.")
    folders: dict[str, str] = {}
    for name in map(str, value):
        other = folders.setdefault(_slug(name), name)
        if other != name or not _slug(name):
            raise ValueError(f"{where}: {name!r} and {other!r} do not tell two folders apart; choose other letters.")
    return {str(name): _options(options, f"{where}, {name}") for name, options in value.items()}


def _options(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}; accepted is a mapping of options to values.")
    if value and "seed" in value:
        raise ValueError(f"{where} names seed; the seeds stand under seeds.")
    return flat_options(value or {}, where)


def _slug(name: str) -> str:
    """Make a folder's name: the letters and digits of the name in small type."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
