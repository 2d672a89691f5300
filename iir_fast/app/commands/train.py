"""`iir-fast train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from iir_fast.app.commands.recipe import named_recipe
from iir_fast.app.progress import say
from iir_fast.app.runs import evaluate_run, validation
from iir_fast.app.tables import metrics_table
from iir_fast.data import has_split
from iir_fast.training import TrainConfig, WhenThere, from_options, train


@dataclass(frozen=True)
class Train:
    """Train a localizer, then evaluate it on the test split."""

    out: tyro.conf.Positional[Path]
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard scalars."""
    recipe: Path | None = None
    """YAML file of options, such as those under configs/; options on the command line go before the file's."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    resume: Literal["no", "auto"] = "no"
    """auto: go on with the run that is in the folder, from its newest checkpoint; start one where there is none."""
    overwrite: bool = False
    """Remove the run that is in the folder and start anew."""
    validate: str | None = None
    """Split to evaluate after every epoch; the checkpoint with the best MaxBoxAccV2 (PxAP where there are masks alone)
    of the default map is kept as checkpoints/best.pt."""

    def run(self) -> None:
        if self.resume != "no" and self.overwrite:
            raise ValueError("resume and overwrite exclude each other.")
        when_there: WhenThere = "resume" if self.resume == "auto" else "overwrite" if self.overwrite else "refuse"
        validate = None if self.validate is None else validation(self.config, self.validate)
        if not train(self.config, self.out, when_there, validate).by_first_rank:
            return
        if has_split(self.config.data, "test"):
            Console().print(metrics_table(evaluate_run(self.out, device=self.config.device)))
        else:
            say(f"not evaluated: {self.config.data} has no test split.")
        say(f"run in {self.out}")


def train_with_recipe(arguments: Sequence[str]) -> Train | None:
    """Defaults of `train` out of the recipe that its arguments name, if they do."""
    named = named_recipe("train", arguments)
    if named is None:
        return None
    file, options = named
    if "data" not in options and not any(each.partition("=")[0] == "--data" for each in arguments):
        raise ValueError(f"{file} leaves the data to you; name them with --data.")
    return Train(tyro.MISSING, file, from_options(TrainConfig, options, str(file)))
