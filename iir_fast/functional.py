"""The operators and the loss as functions."""

from iir_fast.kernels import (
    DualCAMs,
    LabelCAMs,
    RegionDescriptors,
    RegulatedCAMs,
    dual_cam,
    evidence_map,
    label_cam,
    masked_pool,
    regulate,
    subgroup_similarity,
)
from iir_fast.loss import IIRTerms, iir_loss

__all__ = [
    "DualCAMs",
    "IIRTerms",
    "LabelCAMs",
    "RegionDescriptors",
    "RegulatedCAMs",
    "dual_cam",
    "evidence_map",
    "iir_loss",
    "label_cam",
    "masked_pool",
    "regulate",
    "subgroup_similarity",
]
