"""The operators and the loss as functions."""

from iir_fast.kernels import (
    LabelCAMs,
    RegionDescriptors,
    RegulatedCAMs,
    evidence_map,
    label_cam,
    masked_pool,
    regulate,
    subgroup_similarity,
)
from iir_fast.loss import IIRTerms, iir_loss

__all__ = [
    "IIRTerms",
    "LabelCAMs",
    "RegionDescriptors",
    "RegulatedCAMs",
    "evidence_map",
    "iir_loss",
    "label_cam",
    "masked_pool",
    "regulate",
    "subgroup_similarity",
]
