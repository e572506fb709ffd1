"""A backbone, a loss, an assigner, a transform, an annotation format and a callback for retinanet."""
