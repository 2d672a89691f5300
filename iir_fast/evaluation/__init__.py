"""Evaluation of score maps by the field's protocol: MaxBoxAcc, MaxBoxAccV2, PxAP, GT-known and Top-k localization."""

from iir_fast.extras import needs_system
from iir_fast.names import REFINEMENTS, Refinement

with needs_system("iir_fast.evaluation"):
    from iir_fast.evaluation.boxes import largest_box, outer_contours, thresholds
    from iir_fast.evaluation.contours import score_contours
    from iir_fast.evaluation.evaluator import Evaluator
    from iir_fast.evaluation.measurement import ScoredImage, scale_boxes
    from iir_fast.evaluation.metrics import V1_DELTA, BoxCurve, FixedThreshold, Metrics, Peak, TopPeaks
    from iir_fast.evaluation.model import Predictions, evaluate_maps, evaluate_scoremaps, predict
    from iir_fast.evaluation.refinement import check_refinement, fit_image, own_threshold, refine, refined_name
    from iir_fast.evaluation.scoremaps import PROTOCOL_SIZE, resize_scoremap, save_scoremap
    from iir_fast.evaluation.significance import Interval, PairedTest, bootstrap_interval, paired_test
    from iir_fast.evaluation.stored_maps import StoredMaps
    from iir_fast.evaluation.verdicts import ERRORS, ErrorKind, Verdict, error_kind, judge

__all__ = [
    "ERRORS",
    "PROTOCOL_SIZE",
    "REFINEMENTS",
    "V1_DELTA",
    "BoxCurve",
    "ErrorKind",
    "Evaluator",
    "FixedThreshold",
    "Interval",
    "Metrics",
    "PairedTest",
    "Peak",
    "Predictions",
    "Refinement",
    "ScoredImage",
    "StoredMaps",
    "TopPeaks",
    "Verdict",
    "bootstrap_interval",
    "check_refinement",
    "error_kind",
    "evaluate_maps",
    "evaluate_scoremaps",
    "fit_image",
    "judge",
    "largest_box",
    "outer_contours",
    "own_threshold",
    "paired_test",
    "predict",
    "refine",
    "refined_name",
    "resize_scoremap",
    "save_scoremap",
    "scale_boxes",
    "score_contours",
    "thresholds",
]
