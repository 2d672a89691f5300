"""What a trained predictor is for: from images to boxes, their pictures, their files, and networks to hand on."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.localization"):
    from iir_fast.localization.export import export_network
    from iir_fast.localization.overlay import PREDICTED_COLOUR, TRUE_COLOUR, overlay, save_picture
    from iir_fast.localization.predictor import (
        FoundObject,
        ImageInput,
        ImageResult,
        Predictor,
        scale_box,
    )
    from iir_fast.localization.writing import BoxFormat, write_boxes

__all__ = [
    "PREDICTED_COLOUR",
    "TRUE_COLOUR",
    "BoxFormat",
    "FoundObject",
    "ImageInput",
    "ImageResult",
    "Predictor",
    "export_network",
    "overlay",
    "save_picture",
    "scale_box",
    "write_boxes",
]
