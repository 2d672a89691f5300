"""The operators of iir_fast, one room each.

A room holds one operator in several implementations of one contract:

- ``reference.py``: plain differentiable torch for every floating dtype. It is the oracle and never calls the others.
  What the operator and its backward pass are given has its types here.
- ``native.py``: closed-form forward and backward on compiled kernels (``kernels/native``), for CPU tensors. What they
  do not support, such as float64, runs on the reference.
- ``triton.py``: GPU kernels, and launchers that plan their launches from the shapes alone. Imported when first used.
- ``__init__.py``: the contract (the public function's docstring), the registration with ``torch.library`` and the
  gradient's wiring.

Open ``evidence_map/__init__.py`` first: it is the smallest room, and the others are built like it.

``dual_cam``, all that a head with two classifiers does, and ``inter_intra``, all that the loss does with it, are made
of the other rooms; ``dual_cam/whole.py``, the one file more, has the kernels whose programs take a whole sample. Triton
kernels of several rooms are made of ``tiles.py`` and ``sums.py``. All of it knows tensors, not training: nothing here
imports from the rest of ``iir_fast``.
"""

from iir_fast.kernels.dual_cam import DualCAMs, dual_cam
from iir_fast.kernels.evidence_map import evidence_map
from iir_fast.kernels.inter_intra import InterIntra, inter_intra
from iir_fast.kernels.label_cam import LabelCAMs, label_cam
from iir_fast.kernels.masked_pool import RegionDescriptors, masked_pool
from iir_fast.kernels.regulate import RegulatedCAMs, regulate
from iir_fast.kernels.segments import segment_sum
from iir_fast.kernels.selection import backend
from iir_fast.kernels.subgroup_similarity import subgroup_similarity

__all__ = [
    "DualCAMs",
    "InterIntra",
    "LabelCAMs",
    "RegionDescriptors",
    "RegulatedCAMs",
    "backend",
    "dual_cam",
    "evidence_map",
    "inter_intra",
    "label_cam",
    "masked_pool",
    "regulate",
    "segment_sum",
    "subgroup_similarity",
]
