"""The commands of docs/large_batch.md are taken, and ranks can share their batches."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from torch.distributed.run import parse_args

from iir_fast.app import cli
from iir_fast.app.commands.plan import Plan
from iir_fast.app.commands.train import Train

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "large_batch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [words for line in LINES if (words := shlex.split(line, comments=True)) and "..." not in words]


def test_training_is_shown_on_1_8_and_64_gpus(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self: runs.append(self))
    ranks = []
    for command in COMMANDS:
        if command[0] == "torchrun":
            launched = parse_args(command[1:])
            assert launched.training_script == "iir_fast"
            ranks.append(int(launched.nnodes.rpartition(":")[2]) * int(launched.nproc_per_node))
            cli.main(launched.training_script_args)
        elif command[:2] == ["iir-fast", "train"]:
            ranks.append(1)
            cli.main(command[1:])
    # The last one resumes the first.
    assert ranks == [1, 8, 64, 1]
    assert runs[3].config == runs[0].config
    for size, run in zip(ranks, runs, strict=True):
        config = run.config
        assert config.data == "ilsvrc:/data"
        assert config.model.backbone == "resnet50.tv_in1k"
        assert (config.optimization.schedule, config.optimization.warmup_epochs) == ("cosine", 5)
        assert config.execution.precision == "bf16"
        assert config.execution.sync_batch_norm == (size > 1)
        assert config.optimization.classes_per_batch * config.optimization.images_per_class % size == 0
    batches = [run.config.optimization for run in runs]
    images = [each.classes_per_batch * each.images_per_class * each.accumulate for each in batches]
    assert images == [1024, 1024, 8192, 1024]


def test_plans_are_shown_with_commands_that_are_taken(monkeypatch):
    plans: list[Plan] = []
    monkeypatch.setattr(Plan, "run", lambda self: plans.append(self))
    for command in COMMANDS:
        if command[:2] == ["iir-fast", "plan"]:
            cli.main(command[1:])
    assert {plan.setup.backbone for plan in plans} == {"vgg16", "resnet50", "inception_v3"}
    assert {plan.setup.ranks for plan in plans} == {1, 64}


def test_every_command_is_looked_at():
    names = {" ".join(command[: 1 if command[0] == "torchrun" else 2]) for command in COMMANDS}
    assert names == {"torchrun", "iir-fast train", "iir-fast plan"}
