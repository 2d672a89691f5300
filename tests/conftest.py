"""Which device and which implementation of the operators are under test, and processes that start at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

# The one place that says where tests run. "cuda", which ROCm is called too, is for those of the operators and of gpu/;
# triton/test_device.py starts a process with it where there is a GPU.
DEVICE = os.environ.get("IIR_FAST_TEST_DEVICE", "cpu")
ON_GPU = [Path(__file__).with_name(name) for name in ("kernels", "gpu")]
# test_interpreter.py starts a second process in which it is "triton"; in both, calls that force nothing run it.
IMPLEMENTATION = os.environ.get("IIR_FAST_BACKEND", "native" if DEVICE == "cpu" else "triton")
FORKED = Path(__file__).with_name("forked.py")
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
BEFORE_HIDING = "IIR_FAST_TEST_VISIBLE_DEVICES"


def hide_gpus_from(environment: MutableMapping[str, str]) -> None:
    """Let a process with this environment, and what it starts, find no GPU; `show_gpus_of` undoes it."""
    environment.setdefault(BEFORE_HIDING, json.dumps({name: environment.get(name) for name in VISIBLE}))
    # To HIP an empty list is none.
    environment.update(dict.fromkeys(VISIBLE, "-1"))


def show_gpus_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the GPUs that were there, for a process that is to test on them."""
    before = json.loads(environment.get(BEFORE_HIDING, "{}"))
    others = {name: value for name, value in environment.items() if name not in (*VISIBLE, BEFORE_HIDING)}
    return others | {name: value for name, value in before.items() if value} | {"IIR_FAST_TEST_DEVICE": "cuda"}


if DEVICE == "cpu":
    # No test is to land on a GPU by accident. Here rather than in a fixture: before anything can ask torch for one, and
    # so that all inherit it that is started from here, workers of pytest-xdist and the fork server among them.
    hide_gpus_from(os.environ)


# Workers side by side share the processors. Threads beyond these wait for each other in busy loops, and a test takes
# ten times as long. What is started from here inherits it, too.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "native: about the native implementations, left out where others are under test")
    config.addinivalue_line("markers", "gpu: needs a GPU, left out where the CPU is under test")
    if DEVICE not in ("cpu", "cuda"):
        raise pytest.UsageError(f"IIR_FAST_TEST_DEVICE is {DEVICE!r}; accepted are 'cpu' and 'cuda'.")
    if DEVICE == "cpu" and "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        raise pytest.UsageError("something used a GPU before the tests could hide it; a plugin of pytest, perhaps.")
    if DEVICE == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("IIR_FAST_TEST_DEVICE is 'cuda', and torch finds no CUDA or ROCm device here.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start every test and its fixtures from the same random numbers, whatever ran before."""
    # Not at the top: GPUs are hidden first.
    import torch

    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    native = pytest.mark.skip(reason="about the native implementations; others are under test")
    gpu = pytest.mark.skip(reason="needs a GPU: IIR_FAST_TEST_DEVICE=cuda pytest tests/kernels tests/gpu")
    cpu = pytest.mark.skip(reason="runs on the CPU; on a GPU only tests/kernels and tests/gpu do")
    for item in items:
        if item.get_closest_marker("native") and (DEVICE, IMPLEMENTATION) != ("cpu", "native"):
            item.add_marker(native)
        if item.get_closest_marker("gpu") and DEVICE == "cpu":
            item.add_marker(gpu)
        if DEVICE != "cpu" and not any(folder in item.path.parents for folder in ON_GPU):
            item.add_marker(cpu)


@pytest.fixture(scope="session")
def device() -> str:
    """The device under test: "cpu" or "cuda"."""
    return DEVICE


@pytest.fixture(scope="session")
def hide_gpus() -> Callable[[MutableMapping[str, str]], None]:
    """`hide_gpus_from`, which has been at work."""
    return hide_gpus_from


@pytest.fixture(scope="session")
def show_gpus() -> Callable[[Mapping[str, str]], dict[str, str]]:
    """`show_gpus_of`."""
    return show_gpus_of


@pytest.fixture
def implementation() -> str:
    """The backend under test: "native" or "triton"."""
    return IMPLEMENTATION


@pytest.fixture(params=[IMPLEMENTATION, "reference"])
def each_backend(request: pytest.FixtureRequest) -> str:
    """The backend under test, and the reference."""
    return request.param


@pytest.fixture(scope="session", autouse=os.environ.get("TRITON_INTERPRET") == "1")
def quicker_interpreter() -> Iterator[None]:
    """Triton's interpreter prepares its language anew for every call of a function: two thirds of its time, saved.

    Beside NumPy 2.4 the interpreter of Triton 3.5 and 3.6 knows no loop of run-time length; here it does.
    """
    from triton.runtime import interpreter

    # Private names, so not there for good; a Triton that has others is merely slower.
    prepare: Callable[[Any], Any] | None = getattr(interpreter, "_patch_lang", None)
    if prepare is None:
        yield
        return
    # From 3.6 on the language is put back after every launch, by what `_patch_lang` returns; before, it stays prepared.
    nothing_to_put_back: Callable[[], Any] = getattr(interpreter, "_LangPatchScope", lambda: None)

    def prepare_once(function: Any) -> Any:
        languages = [value for value in function.__globals__.values() if value in (interpreter.tl, interpreter.tl.core)]
        if any(interpreter.tl.core.is_builtin(language.load) for language in languages):
            to_put_back = prepare(function)
            # As 3.7 has it: NumPy takes no array for an integer any more, be it of a single element.
            interpreter.tl.tensor.__index__ = lambda self: int(self.handle.data.item())
            return to_put_back
        return nothing_to_put_back()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", prepare_once)
        yield


@dataclass(frozen=True)
class Started:
    """A Python process of its own that was spared the imports."""

    process: BaseProcess
    output: Path
    errors: Path

    def finish(self, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Wait for it, and see that it ends with that exit status."""
        self.process.join(600)
        self.process.kill()  # if it hangs
        stdout, stderr = (file.read_text(encoding="utf-8") for file in (self.output, self.errors))
        assert self.process.exitcode == code, stdout + stderr
        return subprocess.CompletedProcess([], code, stdout, stderr)


@pytest.fixture(scope="session")
def start_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Started]:
    """Starts `python ARGUMENTS` with the environment of the test and variables of its own.

    The process is forked from one that has imported the package, which takes some five seconds of a processor
    otherwise, most of them for torch and timm.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iir_fast.app.commands.train", "iir_fast.comparison", "iir_fast.report"])
    folder, numbers = tmp_path_factory.mktemp("python"), count()

    def start(*arguments: object, **variables: str) -> Started:
        number = next(numbers)
        output, errors = folder / f"{number}.out", folder / f"{number}.err"
        given = (list(map(str, arguments)), {**os.environ, **variables}, output, errors)
        process = context.Process(target=runpy.run_path, args=(str(FORKED), {"given": given}))
        process.start()
        return Started(process, output, errors)

    return start


@pytest.fixture(scope="session")
def cli(start_python: Callable[..., Started]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `iir-fast ARGUMENTS` as a process and sees that it ends with the exit status `code`, 0 if not told."""

    def run(*arguments: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return start_python("-m", "iir_fast", *arguments, **variables).finish(code)

    return run


@pytest.fixture(scope="session")
def start_ranks(start_python: Callable[..., Started]) -> Callable[..., list[Started]]:
    """Starts `python ARGUMENTS` on so many ranks with the environment that torchrun would give them."""

    def start(size: int, *arguments: object) -> list[Started]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        shared |= {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
        return [start_python(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(size)]

    return start


@pytest.fixture(scope="session")
def on_ranks(start_ranks: Callable[..., list[Started]]) -> Callable[..., list[str]]:
    """Runs `python ARGUMENTS` on so many ranks; what each prints.

    Every one of them must end with the exit status `code`, 0 if not told.
    """

    def run(size: int, *arguments: object, code: int = 0) -> list[str]:
        return [rank.finish(code).stdout for rank in start_ranks(size, *arguments)]

    return run
