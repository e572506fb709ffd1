"""Evaluate a detector: COCO metrics, precision-recall curves, the confusion matrix."""

from retinanet.evaluate.coco import ClassMetrics, Metrics, evaluate_results
from retinanet.evaluate.confusion import ConfusionMatrix, confusion_matrix
from retinanet.evaluate.curves import PrecisionRecall, precision_recall
from retinanet.evaluate.evaluation import Evaluation, evaluate, evaluate_model, match_classes
from retinanet.evaluate.ground_truth import EvaluationError
from retinanet.predict.coco_results import detections_to_array, detections_to_coco

__all__ = [
    "ClassMetrics",
    "ConfusionMatrix",
    "Evaluation",
    "EvaluationError",
    "Metrics",
    "PrecisionRecall",
    "confusion_matrix",
    "detections_to_array",
    "detections_to_coco",
    "evaluate",
    "evaluate_model",
    "evaluate_results",
    "match_classes",
    "precision_recall",
]
