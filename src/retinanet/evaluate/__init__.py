"""Evaluate a detector: COCO and other metrics, slices, precision-recall curves, the confusion matrix."""

from retinanet.evaluate.attributes import Attribute
from retinanet.evaluate.best_f1 import BestF1, BestF1Metrics, best_f1_metrics
from retinanet.evaluate.coco import ClassMetrics, Metrics, evaluate_results
from retinanet.evaluate.confusion import ConfusionMatrix, confusion_matrix
from retinanet.evaluate.curves import PrecisionRecall, precision_recall
from retinanet.evaluate.evaluation import Evaluation, evaluate, evaluate_model, match_classes
from retinanet.evaluate.federated import FederatedMetrics, lvis_metrics, open_images_metrics
from retinanet.evaluate.ground_truth import EvaluationError
from retinanet.evaluate.slices import Slice, slice_metrics
from retinanet.evaluate.voc import VocAP, VocMetrics, voc_metrics
from retinanet.predict.coco_results import detections_to_array, detections_to_coco

__all__ = [
    "Attribute",
    "BestF1",
    "BestF1Metrics",
    "ClassMetrics",
    "ConfusionMatrix",
    "Evaluation",
    "EvaluationError",
    "FederatedMetrics",
    "Metrics",
    "PrecisionRecall",
    "Slice",
    "VocAP",
    "VocMetrics",
    "best_f1_metrics",
    "confusion_matrix",
    "detections_to_array",
    "detections_to_coco",
    "evaluate",
    "evaluate_model",
    "evaluate_results",
    "lvis_metrics",
    "match_classes",
    "open_images_metrics",
    "precision_recall",
    "slice_metrics",
    "voc_metrics",
]
