"""The loaders of a run."""

import pytest
import torch

from retinanet.train import fit
from retinanet.train.detection_module import DetectionModule


@pytest.mark.slow
def test_every_epoch_shuffles_and_augments_anew(tiny, monkeypatch):
    """Lightning must tell the sampler its epoch: otherwise every epoch repeats the first, silently."""
    seen: dict[int, list[torch.Tensor]] = {}
    original = DetectionModule.training_step

    def watching(self, batch, batch_idx):
        seen.setdefault(self.current_epoch, []).append(batch.images_N3HW.clone())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", watching)
    fit(**{**tiny, "color_jitter": 0.5, "workers": 2, "evaluate_every": 3, "measure_imbalance": 0}, epochs=3)
    images = [[image for batch in seen[epoch] for image in batch] for epoch in range(3)]
    assert [len(p) for p in images] == [12, 12, 12]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert not any(torch.equal(a, b) for a in images[first] for b in images[second])
