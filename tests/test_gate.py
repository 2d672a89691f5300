"""The gate of `mixed`: against the pairwise definition, and where it must be closed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast.gate import mixing_gate


def by_pairs(foreground: torch.Tensor, labels: torch.Tensor) -> float:
    rhos = []
    for r in range(foreground.shape[1]):
        f = F.normalize(foreground[:, r], dim=1)
        ratios = []
        for i in range(len(f)):
            distances = [(f[i] - f[j]).square().sum() for j in range(len(f))]
            same = [d for j, d in enumerate(distances) if j != i and labels[j] == labels[i]]
            other = [d for j, d in enumerate(distances) if labels[j] != labels[i]]
            if same and other:
                ratios.append(torch.stack(same).mean() / torch.stack(other).mean())
        rhos.append(min(1.0, float(torch.stack(ratios).mean())))
    rho = sum(rhos) / len(rhos)
    return max(0.0, 1 - (2.5 * rho) ** 2) ** 2


@pytest.mark.parametrize("spread", [0.05, 0.3, 2.0])
def test_equals_the_definition_over_pairs(spread):
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([7, 3, 7, 7, 100, 3, 9, 3])
    centres = torch.randn(101, 2, 6, generator=generator, dtype=torch.float64)
    foreground = centres[labels] + spread * torch.randn(8, 2, 6, generator=generator, dtype=torch.float64)
    assert mixing_gate(foreground, labels).item() == pytest.approx(by_pairs(foreground, labels), abs=1e-12)


def test_tight_classes_open_it_and_loose_ones_close_it():
    labels = torch.arange(12) % 3
    tight = F.one_hot(labels, 5).double()[:, None].expand(-1, 2, -1)
    assert mixing_gate(tight, labels) == 1
    assert mixing_gate(torch.ones(12, 2, 5) + torch.eye(12, 5)[:, None], torch.arange(12) // 4) == 0


@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3], []])
def test_closed_for_one_class_no_pair_and_an_empty_batch(labels):
    assert mixing_gate(torch.randn(len(labels), 2, 5), torch.tensor(labels, dtype=torch.int64)) == 0
