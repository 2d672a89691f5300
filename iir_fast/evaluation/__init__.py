"""Evaluation of score maps by the field's protocol: MaxBoxAcc, MaxBoxAccV2, PxAP, GT-known and Top-k localization."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.evaluation"):
    from iir_fast.evaluation.boxes import largest_box, outer_contours, thresholds
    from iir_fast.evaluation.contours import score_contours
    from iir_fast.evaluation.evaluator import Evaluator
    from iir_fast.evaluation.measurement import ScoredImage, scale_boxes
    from iir_fast.evaluation.metrics import BoxCurve, FixedThreshold, Metrics
    from iir_fast.evaluation.model import Predictions, evaluate_maps, evaluate_scoremaps, predict
    from iir_fast.evaluation.refinement import (
        GRABCUT_THRESHOLD,
        REFINEMENTS,
        Refinement,
        check_refinement,
        fit_image,
        refine,
    )
    from iir_fast.evaluation.scoremaps import PROTOCOL_SIZE, resize_scoremap, save_scoremap
    from iir_fast.evaluation.stored_maps import StoredMaps

__all__ = [
    "GRABCUT_THRESHOLD",
    "PROTOCOL_SIZE",
    "REFINEMENTS",
    "BoxCurve",
    "Evaluator",
    "FixedThreshold",
    "Metrics",
    "Predictions",
    "Refinement",
    "ScoredImage",
    "StoredMaps",
    "check_refinement",
    "evaluate_maps",
    "evaluate_scoremaps",
    "fit_image",
    "largest_box",
    "outer_contours",
    "predict",
    "refine",
    "resize_scoremap",
    "save_scoremap",
    "scale_boxes",
    "score_contours",
    "thresholds",
]
