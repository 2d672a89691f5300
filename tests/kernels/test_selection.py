"""Backend selection: forced by code and by the environment, announced once, refused when unknown."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
import torch

from iir_fast import backend
from iir_fast.functional import masked_pool


def test_the_previous_choice_comes_back_after_an_error():
    from iir_fast.kernels import selection

    with contextlib.suppress(KeyError), backend("reference"):
        assert selection.is_reference_forced()
        {}.pop("nothing")
    assert not selection.is_reference_forced()


def test_an_unknown_backend_is_named_with_what_is_there():
    with pytest.raises(ValueError, match="'cuda'; this build has the backends reference, host"), backend("cuda"):
        pass


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


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


def test_the_choice_is_logged_once(caplog):
    from iir_fast.kernels import selection

    selection._announced.clear()
    with caplog.at_level("INFO", logger="iir_fast"):
        for _ in range(3):
            masked_pool(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert [record.message for record in caplog.records] == [
        "operators on cpu tensors run on the host backend: it is the fastest that can run there."
    ]


def test_import_needs_neither_triton_nor_timm():
    code = (
        "import sys; sys.modules['triton'] = None; sys.modules['timm'] = None;"
        "import iir_fast; from iir_fast import IIRLoss, DualCAMHead; print('ok')"
    )
    out = run_python(code)
    assert out.stdout.strip() == "ok", out.stderr
