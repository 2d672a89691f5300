"""Backend selection: by device, forced by code and by the environment, announced once, refused when it cannot run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from iir_fast import backend
from iir_fast.functional import masked_pool
from iir_fast.kernels import selection

pytestmark = pytest.mark.skipif("IIR_FAST_BACKEND" in os.environ, reason="a backend is forced")

WITHOUT_TRITON = "import sys; sys.modules['triton'] = None;"
POOL = """
import sys, torch
from iir_fast.functional import masked_pool
masked_pool(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
print([name for name in sys.modules if name.startswith("iir_fast") and name.endswith(".triton")])
"""


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "triton", None)
    selection._triton_fault.cache_clear()
    yield
    selection._triton_fault.cache_clear()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    selection._announced.clear()
    caplog.set_level("INFO", logger="iir_fast")
    return caplog


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_previous_choice_comes_back_after_an_error():
    with contextlib.suppress(KeyError), backend("reference"):
        assert selection.is_reference_forced()
        {}.pop("nothing")
    assert not selection.is_reference_forced()


def test_an_unknown_backend_is_named_with_what_is_there():
    with pytest.raises(ValueError, match="'cuda'; accepted are reference, host, triton"), backend("cuda"):
        pass


def test_a_gpu_takes_triton_and_everything_else_the_host():
    pytest.importorskip("triton")
    assert selection.choose("cuda").backend == "triton"
    assert selection.choose("cpu").backend == "host"
    assert selection.choose("mps").backend == "host"
    with backend("host"):
        assert selection.choose("cuda") == ("host", "it was forced")


def test_a_gpu_without_triton_falls_back_with_one_warning(without_triton, log):
    for _ in range(3):
        assert selection.choose("cuda").backend == "host"
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert "operators on cuda tensors run on the host backend: triton, which has the GPU kernels" in record.message


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
        "print(selection.is_reference_forced(), masked_pool(x, torch.ones(1, 1, 2, 2)).foreground.grad_fn.name())"
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
        "operators on cpu tensors run on the host backend: it is the fastest that can run there."
    ]


def test_import_needs_neither_triton_nor_timm():
    code = (
        "import sys; sys.modules['triton'] = None; sys.modules['timm'] = None;"
        "import iir_fast; from iir_fast import IIRLoss, DualCAMHead; print('ok')"
    )
    out = run_python(code)
    assert out.stdout.strip() == "ok", out.stderr


def test_the_host_path_never_imports_triton_kernels():
    out = run_python(POOL)
    assert out.stdout.strip() == "[]", out.stderr
