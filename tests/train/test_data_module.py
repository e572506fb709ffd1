"""Data loaders of a training run."""

import pytest
import torch

from retinanet.train import fit
from retinanet.train.detection_module import DetectionModule


@pytest.mark.slow
def test_each_epoch_has_its_own_order_and_augmentation(tiny, monkeypatch):
    """Without `set_epoch`, each epoch would repeat the first epoch without any error."""
    batches: dict[int, list[torch.Tensor]] = {}
    original = DetectionModule.training_step

    def store_batch(self, batch, batch_idx):
        batches.setdefault(self.current_epoch, []).append(batch.images_N3HW.clone())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", store_batch)
    fit(**{**tiny, "color_jitter": 0.5, "workers": 2, "evaluate_every": 3, "measure_imbalance": 0}, epochs=3)
    images = [[image for batch in batches[epoch] for image in batch] for epoch in range(3)]
    assert [len(epoch_images) for epoch_images in images] == [12, 12, 12]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert not any(torch.equal(a, b) for a in images[first] for b in images[second])
