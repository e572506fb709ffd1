"""Export to ONNX, OpenVINO and torch.export, and the runtime that needs no torch.

Nothing is imported here: `retinanet.export.runtime` must come without torch, `retinanet.export.run` with it.
"""
