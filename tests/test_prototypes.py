"""ClassPrototypes: the moving average, classes never seen, and the evidence they give."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iir_fast import ClassPrototypes
from iir_fast.functional import evidence_map


def test_first_batch_sets_and_later_ones_move_by_a_tenth():
    prototypes = ClassPrototypes(3, 4)
    first, second = torch.randn(3, 2, 4), torch.randn(1, 2, 4)
    prototypes.update(first, torch.tensor([0, 2, 0]))
    sums = F.normalize(first, dim=2).sum(1)
    torch.testing.assert_close(prototypes.vectors[0], (sums[0] + sums[2]) / 2)
    torch.testing.assert_close(prototypes.vectors[2], sums[1])
    assert prototypes.seen.tolist() == [True, False, True]
    prototypes.update(second, torch.tensor([2]))
    torch.testing.assert_close(prototypes.vectors[2], 0.9 * sums[1] + 0.1 * F.normalize(second, dim=2).sum(1)[0])
    torch.testing.assert_close(prototypes.vectors[0], (sums[0] + sums[2]) / 2)
    assert not prototypes.vectors[1].any()


def test_evidence_is_cosine_to_the_prototype_minus_cosine_to_the_background():
    prototypes = ClassPrototypes(2, 4)
    prototypes.update(torch.randn(2, 2, 4), torch.tensor([0, 1]))
    background, features, labels = torch.randn(3, 2, 4), torch.randn(3, 4, 5, 5), torch.tensor([1, 0, 1])
    evidence = evidence_map(features, prototypes.evidence_vectors(background, labels))[:, 0]
    own = F.normalize(background, dim=2).sum(1)
    expected = F.cosine_similarity(features, prototypes.vectors[labels][:, :, None, None]) - F.cosine_similarity(
        features, own[:, :, None, None]
    )
    torch.testing.assert_close(evidence, expected)


def test_they_belong_to_the_checkpoint():
    prototypes, other = ClassPrototypes(2, 4), ClassPrototypes(2, 4)
    prototypes.update(torch.randn(2, 2, 4), torch.tensor([0, 0]))
    other.load_state_dict(prototypes.state_dict())
    assert torch.equal(other.vectors, prototypes.vectors)
    assert other.seen.tolist() == [True, False]
