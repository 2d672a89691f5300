"""Backend selection: by device, forced by code and by the environment, announced once, refused when it cannot run.

There need not be a GPU: choosing for one looks at no tensor.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch

from iir_fast import backend
from iir_fast.functional import masked_pool
from iir_fast.kernels import selection

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif("IIR_FAST_BACKEND" in os.environ, reason="a backend is forced"),
]

WITHOUT_TRITON = "import sys; sys.modules['triton'] = None;"
POOL = """
import sys, torch
from iir_fast.functional import masked_pool
masked_pool(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
print([name for name in sys.modules if name.startswith("iir_fast") and name.endswith(".triton")])
"""
# Triton believes in a GPU and goes on to build what launches kernels there.
ON_A_GPU = """
from triton.backends import backends
from iir_fast import backend
from iir_fast.kernels import selection
backends["nvidia"].driver.is_active = staticmethod(lambda: True)
for _ in range(2):
    print(selection.choose("cuda").backend)
with backend("triton"):
    selection.choose("cuda")
"""
REMEDY = "it needs a C compiler (gcc, clang or what CC names) and the headers of Python (python3-dev)"


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """What was found out about triton before counts no more, and what a test finds out not after it."""
    for fault in (selection._import_fault, selection._launch_fault):
        fault.cache_clear()
    yield
    for fault in (selection._import_fault, selection._launch_fault):
        fault.cache_clear()


@pytest.fixture
def without_triton(asked_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)


@pytest.fixture
def triton_runtime(asked_anew: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of Triton's: it has a driver, as where there is a GPU and a compiler."""
    runtime = pytest.importorskip("triton.runtime")
    monkeypatch.setattr(runtime, "driver", SimpleNamespace(active="a driver"))
    return runtime


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    selection._announced.clear()
    caplog.set_level("INFO", logger="iir_fast")
    return caplog


def run_python(code: str, without: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**{name: value for name, value in os.environ.items() if name not in without}, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_the_previous_choice_comes_back_after_an_error():
    with contextlib.suppress(KeyError), backend("reference"):
        assert selection.calls_reference()
        {}.pop("nothing")
    assert not selection.calls_reference()


def test_an_unknown_backend_is_named_with_what_is_there():
    with pytest.raises(ValueError, match="'cuda'; accepted are reference, native, triton"), backend("cuda"):
        pass


def test_the_old_name_of_native_works_with_a_warning():
    with pytest.warns(FutureWarning, match="backend is 'host', which is called 'native' now"), backend("host"):
        assert selection.choose("cpu") == ("native", "it was forced")
    out = run_python(
        "from iir_fast.kernels import selection; print(selection.choose('cpu').backend)", IIR_FAST_BACKEND="host"
    )
    assert out.stdout.split() == ["native"]
    assert "FutureWarning: IIR_FAST_BACKEND is 'host', which is called 'native' now" in out.stderr


def test_a_gpu_takes_triton_and_everything_else_native_code(triton_runtime):
    assert selection.choose("cuda").backend == "triton"
    assert selection.choose("cpu").backend == "native"
    assert selection.choose("mps").backend == "native"
    with backend("native"):
        assert selection.choose("cuda") == ("native", "it was forced")


def test_a_gpu_without_triton_falls_back_with_one_warning(without_triton, log):
    for _ in range(3):
        assert selection.choose("cuda").backend == "native"
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert "operators on cuda tensors run on the native backend: triton, which has the GPU kernels" in record.message


@pytest.mark.parametrize(
    ("named", "words"), [({}, "RuntimeError: Failed to find C compiler."), ({"CC": "false"}, "Command '['false'")]
)
def test_a_gpu_without_a_working_c_compiler_falls_back_with_one_warning(named, words, tmp_path):
    """There is none, or it fails, as every one does where Python's headers are missing."""
    pytest.importorskip("triton")
    (tmp_path / "false").symlink_to(shutil.which("false"))
    environment = {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    out = run_python(ON_A_GPU, without=["CC"], **environment, **named)
    assert out.stdout.split() == ["native", "native"], out.stderr
    (warning,) = (line for line in out.stderr.splitlines() if line.startswith("operators on cuda tensors run on"))
    assert "run on the native backend: triton, which has the GPU kernels, cannot launch kernels here" in warning
    assert words in warning
    assert warning.endswith(f"{REMEDY}.")
    forced = out.stderr.splitlines()[-1]
    assert forced.startswith("RuntimeError: backend is 'triton', and triton cannot launch kernels here")
    assert forced.endswith(f"{REMEDY}; accepted here is 'native'.")


def test_the_interpreter_needs_no_compiler(triton_runtime, monkeypatch):
    monkeypatch.setattr(triton_runtime, "driver", None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with backend("triton"):
        assert selection.choose("cuda").backend == selection.choose("cpu").backend == "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    with backend("triton"), pytest.raises(RuntimeError, match="triton cannot launch kernels here"):
        selection.choose("cuda")


def test_triton_cannot_be_forced_where_it_is_missing(without_triton):
    with pytest.raises(RuntimeError, match="backend is 'triton', and triton cannot be imported"), backend("triton"):
        pass


def test_triton_cannot_be_forced_on_cpu_tensors_outside_its_interpreter(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    words = "the tensors are on cpu; accepted are CUDA and ROCm tensors, or any tensors in a process started with"
    with backend("triton"), pytest.raises(RuntimeError, match=words):
        masked_pool(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


def test_environment_forces_a_backend():
    code = (
        "from iir_fast.kernels import selection, masked_pool; import torch;"
        "x = torch.ones(1, 1, 2, 2, requires_grad=True);"
        "print(selection.calls_reference(), masked_pool(x, torch.ones(1, 1, 2, 2)).foreground.grad_fn.name())"
    )
    out = run_python(code, IIR_FAST_BACKEND="reference")
    assert out.stdout.split() == ["True", "DivBackward0"], out.stderr
    out = run_python(code, IIR_FAST_BACKEND="quantum")
    assert out.returncode != 0
    assert "IIR_FAST_BACKEND is 'quantum'" in out.stderr


@pytest.mark.parametrize(("prelude", "words"), [(WITHOUT_TRITON, "cannot be imported"), ("", "tensors are on cpu")])
def test_environment_cannot_force_what_cannot_run(prelude, words):
    out = run_python(prelude + POOL, IIR_FAST_BACKEND="triton", TRITON_INTERPRET="0")
    assert out.stderr.splitlines()[-1].startswith("RuntimeError: backend is 'triton'")
    assert words in out.stderr


def test_the_choice_is_logged_once(log):
    for _ in range(3):
        masked_pool(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert [record.message for record in log.records] == [
        "operators on cpu tensors run on the native backend: it is the fastest that can run there."
    ]


def test_import_needs_neither_triton_nor_timm():
    code = (
        "import sys; sys.modules['triton'] = None; sys.modules['timm'] = None;"
        "import iir_fast; from iir_fast import IIRLoss, DualCAMHead; print('ok')"
    )
    out = run_python(code)
    assert out.stdout.strip() == "ok", out.stderr


def test_the_native_path_never_imports_triton_kernels():
    out = run_python(POOL)
    assert out.stdout.strip() == "[]", out.stderr
