"""What a trained predictor is for: from images to boxes, their pictures, their files, and networks to hand on."""

from iir_fast.extras import needs_system
from iir_fast.names import BOX_FORMATS, BoxFormat

with needs_system("iir_fast.localization"):
    from iir_fast.localization.export import check_export, export_network
    from iir_fast.localization.outline import scale_box
    from iir_fast.localization.overlay import PREDICTED_COLOUR, TRUE_COLOUR, overlay, save_picture
    from iir_fast.localization.predictor import ImageInput, Predictor
    from iir_fast.localization.results import FoundObject, ImageResult, Results
    from iir_fast.localization.writing import FOLDERS, choose_format, write_boxes

__all__ = [
    "BOX_FORMATS",
    "FOLDERS",
    "PREDICTED_COLOUR",
    "TRUE_COLOUR",
    "BoxFormat",
    "FoundObject",
    "ImageInput",
    "ImageResult",
    "Predictor",
    "Results",
    "check_export",
    "choose_format",
    "export_network",
    "overlay",
    "save_picture",
    "scale_box",
    "write_boxes",
]
