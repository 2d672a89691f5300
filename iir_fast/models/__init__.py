"""Networks: backbones that turn images into feature maps, the localizer, and its checkpoints."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.models"):
    from iir_fast.models.backbones import Backbone, create_backbone
    from iir_fast.models.checkpoint import LocalizerSpec, read_checkpoint, save_checkpoint
    from iir_fast.models.checkpoint_folder import CHECKPOINTS, Checkpoint, CheckpointFolder, load_localizer
    from iir_fast.models.erasing_head import ErasingHead
    from iir_fast.models.localizer import DEFAULT_MAP, MAP_KINDS, IIRLocalizer, Localization, MapKind
    from iir_fast.models.small_cnn import SmallCNN

__all__ = [
    "CHECKPOINTS",
    "DEFAULT_MAP",
    "MAP_KINDS",
    "Backbone",
    "Checkpoint",
    "CheckpointFolder",
    "ErasingHead",
    "IIRLocalizer",
    "Localization",
    "LocalizerSpec",
    "MapKind",
    "SmallCNN",
    "create_backbone",
    "load_localizer",
    "read_checkpoint",
    "save_checkpoint",
]
