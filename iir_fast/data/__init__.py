"""Data sets, their ground truth and the sampler of same-class subgroups."""

from iir_fast.extras import needs_system
from iir_fast.sampler import SubgroupSampler

with needs_system("iir_fast.data"):
    from iir_fast.data.check import DataReport, SplitSummary, check_data
    from iir_fast.data.dataset import GroundTruth, LocalizationDataset, Transform
    from iir_fast.data.find import find_images
    from iir_fast.data.images import BrokenImageError, read_image, to_rgb
    from iir_fast.data.packing import Packed, pack_split
    from iir_fast.data.procedural import ProceduralDataset, ProceduralRecipe
    from iir_fast.data.records import Fault
    from iir_fast.data.sources import PROCEDURAL, absolute_source, has_split, open_split, training_classes
    from iir_fast.data.transforms import AugmentedDataset, image_transform

__all__ = [
    "PROCEDURAL",
    "AugmentedDataset",
    "BrokenImageError",
    "DataReport",
    "Fault",
    "GroundTruth",
    "LocalizationDataset",
    "Packed",
    "ProceduralDataset",
    "ProceduralRecipe",
    "SplitSummary",
    "SubgroupSampler",
    "Transform",
    "absolute_source",
    "check_data",
    "find_images",
    "has_split",
    "image_transform",
    "open_split",
    "pack_split",
    "read_image",
    "to_rgb",
    "training_classes",
]
