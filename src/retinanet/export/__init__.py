"""Export to ONNX, OpenVINO and torch.export.

Nothing is imported here: the export needs torch and onnx, which come with the extra `export`.
"""
