"""Networks: backbones that turn images into feature maps, the network, its checkpoints, and classifiers as they are."""

from iir_fast.extras import needs_system
from iir_fast.names import DEFAULT_MAP, MAPS, MapName

with needs_system("iir_fast.models"):
    from iir_fast.models.backbones import Backbone, create_backbone
    from iir_fast.models.checkpoint import NetworkSpec, read_checkpoint, save_checkpoint
    from iir_fast.models.checkpoint_folder import CHECKPOINTS, Checkpoint, CheckpointFolder, load_network
    from iir_fast.models.classifier import ClassifierSpec, create_classifier
    from iir_fast.models.erasing_head import ErasingHead
    from iir_fast.models.localizer import Localizer
    from iir_fast.models.network import IIRNetwork, LocalizationMaps
    from iir_fast.models.small_cnn import SmallCNN

__all__ = [
    "CHECKPOINTS",
    "DEFAULT_MAP",
    "MAPS",
    "Backbone",
    "Checkpoint",
    "CheckpointFolder",
    "ClassifierSpec",
    "ErasingHead",
    "IIRNetwork",
    "LocalizationMaps",
    "Localizer",
    "MapName",
    "NetworkSpec",
    "SmallCNN",
    "create_backbone",
    "create_classifier",
    "load_network",
    "read_checkpoint",
    "save_checkpoint",
]
