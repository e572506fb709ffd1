"""Export to ONNX, OpenVINO and torch.export.

This file imports nothing, because the export needs torch and onnx, which only the extra `export` installs.
"""
