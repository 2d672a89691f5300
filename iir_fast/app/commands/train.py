"""`iir-fast train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from iir_fast.app.commands.recipe import look
from iir_fast.app.progress import log
from iir_fast.app.runs import evaluate_run, validation
from iir_fast.app.tables import metrics_table
from iir_fast.data import has_split
from iir_fast.methods import METHODS, MethodName
from iir_fast.training import DEFAULT_METHOD, IfExists, RunFolder, TrainConfig, other_home, train


@dataclass(frozen=True)
class Train:
    """Train a localizer, then evaluate it on the test split."""

    out: tyro.conf.Positional[Path]
    """Folder of the run: configuration, checkpoint, metrics, and the history of what was done."""
    recipe: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """YAML file of options, such as those under configs/; options on the command line go before the file's, and those
    of a second recipe before the first one's."""
    method: Annotated[MethodName, tyro.conf.arg(metavar=f"{{{','.join(METHODS)}}}")] = DEFAULT_METHOD
    """Training method. Its options are below; with the name of another method, --help shows those of that one."""
    config: Annotated[tyro.conf.OmitArgPrefixes[TrainConfig], tyro.conf.arg(name="")] = field(
        default_factory=TrainConfig
    )
    resume: Literal["no", "auto"] = "no"
    """auto: go on with the run that is in the folder, from its newest checkpoint; start one where there is none."""
    overwrite: bool = False
    """Remove the run that is in the folder, all that iir-fast wrote there, and start anew; other files are left."""
    validate: str | None = None
    """Split to evaluate after every epoch; the checkpoint with the best MaxBoxAccV2 (PxAP where there are masks alone,
    accuracy where there is neither) of the default map is kept as checkpoints/best.pt."""

    def run(self) -> None:
        if self.resume != "no" and self.overwrite:
            raise ValueError("resume and overwrite exclude each other.")
        if_exists: IfExists = "resume" if self.resume == "auto" else "overwrite" if self.overwrite else "refuse"
        validate = None if self.validate is None else validation(self.config, self.validate)
        has_test = has_split(self.config.data, "test")
        evaluated = dict.fromkeys([*([self.validate] if self.validate else []), *(["test"] if has_test else [])])
        if not train(self.config, self.out, if_exists, validate, tuple(evaluated)).by_first_rank:
            return
        if has_test:
            with RunFolder(self.out).locked():
                metrics = evaluate_run(self.out, device=self.config.device)
            Console().print(metrics_table(metrics))
        else:
            log(f"not evaluated: {self.config.data} has no test split.")
        log(f"run in {self.out}")


def train_defaults(arguments: Sequence[str]) -> Train:
    """Return defaults of `train`, out of the recipes and for the method that its arguments name; raise where a recipe
    is at fault, or an option belongs to another method."""
    options, origin = look(arguments)
    config = TrainConfig.from_options(options, origin)
    names = [each.partition("=")[0] for each in arguments if each.startswith("--")]
    if "data" not in options and "--recipe" in names and "--data" not in names:
        raise ValueError(f"{origin} leaves the data to you; name them with --data.")
    for name in names:
        option = name[2:].replace("-", "_")
        if option not in config.options() and (reason := other_home(option)):
            raise ValueError(f"{name} {reason}; the method is {config.method.name}.")
    return Train(tyro.MISSING, (), config.method.name, config)
