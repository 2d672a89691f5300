"""Networks: backbones that turn images into feature maps, the network, and its checkpoints."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.models"):
    from iir_fast.models.backbones import Backbone, create_backbone
    from iir_fast.models.checkpoint import NetworkSpec, read_checkpoint, save_checkpoint
    from iir_fast.models.checkpoint_folder import CHECKPOINTS, Checkpoint, CheckpointFolder, load_network
    from iir_fast.models.erasing_head import ErasingHead
    from iir_fast.models.network import DEFAULT_MAP, MAPS, IIRNetwork, LocalizationMaps, MapName
    from iir_fast.models.small_cnn import SmallCNN

__all__ = [
    "CHECKPOINTS",
    "DEFAULT_MAP",
    "MAPS",
    "Backbone",
    "Checkpoint",
    "CheckpointFolder",
    "ErasingHead",
    "IIRNetwork",
    "LocalizationMaps",
    "MapName",
    "NetworkSpec",
    "SmallCNN",
    "create_backbone",
    "load_network",
    "read_checkpoint",
    "save_checkpoint",
]
