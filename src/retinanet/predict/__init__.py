"""From images to detections: detectors, tiles, video, drawings and result files."""
