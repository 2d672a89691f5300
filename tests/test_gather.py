"""gather=True with real processes: the loss and its gradients are those of the concatenated batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("gather_rank.py")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-10, 1e-15), ("float32", 1e-4, 1e-6)])
def test_any_number_of_ranks_equals_one_process_on_the_whole_batch(dtype, rtol, atol, on_ranks, tmp_path):
    found = {}
    for ranks in (1, 2, 4) if dtype == "float64" else (1, 2):
        on_ranks(ranks, SCRIPT, tmp_path, dtype)
        found[ranks] = [torch.load(tmp_path / f"{ranks}-{rank}.pt", weights_only=True) for rank in range(ranks)]
    (alone,) = found.pop(1)
    assert alone["gradients"]
    assert alone["features"].abs().min() > 0
    for result in (each for results in found.values() for each in results):
        torch.testing.assert_close(result["loss"], alone["loss"], rtol=rtol / 100, atol=0)
        torch.testing.assert_close(result["gradients"], alone["gradients"], rtol=rtol, atol=atol)
        first, last = result["rows"]
        torch.testing.assert_close(result["features"], alone["features"][first:last], rtol=rtol, atol=atol)
