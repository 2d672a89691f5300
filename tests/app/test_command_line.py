"""What the command line says before it does anything: help, versions, typing errors, and how it is interrupted."""

from __future__ import annotations

import inspect
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import iir_fast
from iir_fast.app import cli
from iir_fast.app.commands.demo import Demo
from iir_fast.training import TrainConfig

ROOT = Path(__file__).parents[2]
# Importing torch, which takes seconds, is an error.
NO_TORCH = """
import sys
from runpy import run_module

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("torch is imported")

sys.meta_path.insert(0, Refuse())
sys.argv[0] = "iir-fast"
run_module("iir_fast", run_name="__main__", alter_sys=True)
"""


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`iir-fast ARGUMENTS` where there is no torch."""
    command = [sys.executable, "-c", NO_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_a_library_logs_is_said_once_and_as_it_is():
    lines = """
import logging
from iir_fast.app import cli
logging.getLogger("own").addHandler(logging.StreamHandler())
cli.main(["--version"])
for name in ("own", "none"):
    logging.getLogger(name).warning("said by " + name)
"""
    result = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert result.stderr == "said by own\nsaid by none\n"


def test_help_lists_every_command_without_torch_and_in_a_fraction_of_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = called("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"  {name:<12}{summary}\n" in result.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in cli.DEFAULTS])
def test_options_of_a_command_are_read_without_torch(name):
    result = called(name, "--help")
    assert result.returncode == 0, result.stderr
    assert f"usage: iir-fast {name} " in result.stdout
    assert called(name, "--no-such-option").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "runs/x"], "iir-fast: command is 'trian'; did you mean train?\n"),
        (["xyz"], "iir-fast: command is 'xyz'; accepted are train, evaluate, "),
        ([], "iir-fast: a command is missing; accepted are train, evaluate, "),
        (["localize", "--modl", "x"], "--model"),
    ],
)
def test_a_typing_error_is_named_with_what_was_meant(arguments, words):
    result = called(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_version():
    assert called("--version").stdout == f"iir-fast {iir_fast.__version__}\n"


def test_the_completion_of_a_shell_knows_commands_and_options(cli):
    script = cli("--tyro-print-completion", "bash").stdout
    for word in ("localize", "--max-objects", "--epochs", "check"):
        assert word in script


# Under a shell's background process SIGINT would be ignored.
MODULE = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('iir_fast', run_name='__main__')"
)


def test_ctrl_c_while_modules_are_imported_is_one_sentence(tmp_path):
    # In place of a module that takes seconds, one that tells when it is imported.
    (tmp_path / "torch.py").write_text("import sys, time\nprint('imported', flush=True)\ntime.sleep(60)\n")
    for first in ("torch", "tyro"):  # with the command, and with the command line
        (tmp_path / f"{first}.py").write_text((tmp_path / "torch.py").read_text())
        command = [sys.executable, "-c", MODULE, "doctor"]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        assert process.stdout
        assert process.stdout.readline() == "imported\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "interrupted.\n")


@pytest.mark.slow
def test_quiet_leaves_remarks_and_results(cli, tmp_path):
    small = ["--train-images", 16, "--test-images", 4, "--epochs", 1, "--classes-per-batch", 2]
    loud = cli("train", tmp_path / "loud", *small)
    quiet = cli("train", tmp_path / "quiet", *small, "--quiet")
    assert "4/4" in loud.stderr
    assert quiet.stderr == f"run in {tmp_path / 'quiet'}\n"
    assert "MaxBoxAccV2" in quiet.stdout
    for did in json.loads((tmp_path / "quiet/history.json").read_text()):
        assert did["command"].endswith(f"train {tmp_path / 'quiet'} {' '.join(map(str, small))} --quiet")


def test_the_demo_says_how_far_it_is_and_goes_on(cli, tmp_path):
    small = ["--seeds", 1, "--epochs", 1, "--train-images", 16, "--test-images", 4]
    out = tmp_path / "demo"
    first = cli("demo", out, *small)
    assert "run 1 of 2: cam, seed 0\n" in first.stderr
    assert "run 2 of 2: iir, seed 0, about 0:00:" in first.stderr
    weights = (out / "cam-seed0/checkpoints").stat().st_mtime_ns
    again = cli("demo", out, *small, "--resume")
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert (out / "cam-seed0/checkpoints").stat().st_mtime_ns == weights
    assert "choose to resume it" in cli("demo", out, *small, code=2).stderr
    assert f"if not {TrainConfig().optimization.epochs}." in inspect.getsource(Demo)
