"""Data loaders of a training run."""

import json
import math

import pytest
import torch

from retinanet.commands.terminal import show_progress
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


def test_the_sampler_draws_the_batches_of_training(tiny, monkeypatch, capsys):
    """With the threshold 1, a class in k of the 12 images has the repeat factor sqrt(12 / k)."""
    truth = json.loads(tiny["train"].read_text())
    images_of = {category["name"]: set() for category in truth["categories"]}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    for annotation in truth["annotations"]:
        images_of[names[annotation["category_id"]]].add(annotation["image_id"])
    factors = {image["id"]: 1.0 for image in truth["images"]}
    for ids in images_of.values():
        factors |= {i: max(factors[i], math.sqrt(12 / len(ids))) for i in ids}
    length = math.ceil(sum(factors.values()))
    assert length > 12
    seen: dict[int, list[int]] = {}
    original = DetectionModule.training_step

    def store_indices(self, batch, batch_idx):
        seen.setdefault(self.current_epoch, []).extend(batch.indices)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", store_indices)
    show_progress()
    fit(**tiny, epochs=2, sampler="repeat_factor", repeat_threshold=1.0, evaluate_every=2)
    assert [len(indices) for indices in seen.values()] == [length] * 2
    assert all(set(indices) == set(range(12)) for indices in seen.values()), "every image at least once"
    stored = json.loads((tiny["output"] / "sampling.json").read_text())
    assert (stored["images"], stored["images_per_epoch"]) == (12, length)
    for name, ids in images_of.items():
        expected = sum(factors[i] for i in ids) * length / sum(factors.values())
        assert stored["per_class"][name]["images_per_epoch"] == pytest.approx(expected, abs=1e-3)
    assert stored["sentence"] in capsys.readouterr().out
