"""Data sets, their ground truth and the sampler of same-class subgroups."""

from iir_fast.data.augmented import AugmentedDataset
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.folder import BrokenImageError, FolderDataset, read_image
from iir_fast.data.ground_truth import GroundTruth
from iir_fast.data.procedural import ProceduralDataset, ProceduralRecipe
from iir_fast.data.sampler import SubgroupSampler
from iir_fast.data.sources import PROCEDURAL, has_split, open_split
from iir_fast.data.transforms import image_transform

__all__ = [
    "PROCEDURAL",
    "AugmentedDataset",
    "BrokenImageError",
    "FolderDataset",
    "GroundTruth",
    "LocalizationDataset",
    "ProceduralDataset",
    "ProceduralRecipe",
    "SubgroupSampler",
    "Transform",
    "has_split",
    "image_transform",
    "open_split",
    "read_image",
]
