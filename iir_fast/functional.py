"""The operators and the loss as functions."""

from iir_fast.kernels import (
    DualCAMs,
    InterIntra,
    LabelCAMs,
    RegionDescriptors,
    RegulatedCAMs,
    dual_cam,
    evidence_map,
    inter_intra,
    label_cam,
    masked_pool,
    regulate,
    subgroup_similarity,
)
from iir_fast.loss import IIRTerms, iir_loss

__all__ = [
    "DualCAMs",
    "IIRTerms",
    "InterIntra",
    "LabelCAMs",
    "RegionDescriptors",
    "RegulatedCAMs",
    "dual_cam",
    "evidence_map",
    "iir_loss",
    "inter_intra",
    "label_cam",
    "masked_pool",
    "regulate",
    "subgroup_similarity",
]
