"""Data loaders of a training run."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch

from retinanet.commands.terminal import show_progress
from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.train import fit
from retinanet.train.data_module import DetectionDataModule
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


@pytest.mark.slow
def test_objects_are_pasted_until_the_last_epochs_in_workers_that_outlive_an_epoch(tiny, capsys):
    """The `training_step` of each epoch receives more objects than the data has, in the last epoch exactly as many."""
    truth = json.loads(tiny["train"].read_text())
    objects: dict[int, int] = {}
    original = DetectionModule.training_step

    def count_objects(self, batch, batch_idx):
        count = sum(len(target.labels_G) for target in batch.targets)
        objects[self.current_epoch] = objects.get(self.current_epoch, 0) + count
        return original(self, batch, batch_idx)

    options = {**tiny, "workers": 2, "evaluate_every": 3, "measure_imbalance": 0, "copy_paste": 1.0}
    show_progress()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionModule, "training_step", count_objects)
        fit(**options, epochs=3, close_augment=1)
    assert "copy_paste: in epochs 1 to 2 of 3\n" in capsys.readouterr().out
    assert objects[2] == len(truth["annotations"]) < min(objects[0], objects[1])


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"epochs": 5, "close_augment": 2}, 3),
        ({"epochs": 5}, 5),
        ({"epochs": 5, "close_augment": 5}, 0),
        ({"epochs": 9, "max_steps": 7, "close_augment": 1}, 2),
        ({"epochs": 9, "max_steps": 6, "close_augment": 1}, 1),
        ({"epochs": 9, "max_steps": 3, "close_augment": 2}, 0),
        ({"epochs": 2, "max_steps": 100, "close_augment": 1}, 1),
        ({"epochs": 9, "max_steps": 7, "accumulate": 2, "close_augment": 1}, 3),
    ],
)
def test_close_augment_counts_from_the_end_of_the_schedule(tiny, options, epochs, caplog):
    """An epoch of 12 images has 3 batches: 3 steps, or 2 with 2 batches per step. A resume starts at a later epoch."""
    config = resolve(TrainConfig, {**tiny, **options, "copy_paste": 0.5})
    data = load(config.train)
    module = DetectionDataModule(config=config, train_data=data, val_data=data)
    for epoch in range(5):
        module.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=epoch)
        batches = module.train_dataloader().batch_sampler
        assert {key.combine for batch in batches for key in batch} == {epoch < epochs}
    assert (f"copy_paste: in epochs 1 to {epochs} of " in caplog.text) == (epochs > 0)
    assert ("copy_paste: in none of " in caplog.text) == (epochs == 0)


def test_the_first_images_of_the_report_are_those_that_the_network_gets(tiny):
    config = resolve(TrainConfig, {**tiny, "workers": 0, "color_jitter": 0.8, "mosaic": 0.5, "crop": 0.5})
    data = load(config.train)
    module = DetectionDataModule(config=config, train_data=data, val_data=data)
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)
    batches = list(module.train_dataloader())
    got = [
        (pixels_3HW[:, : frame.resized_height, : frame.resized_width], target, data.records[index].path.name)
        for batch in batches
        for pixels_3HW, target, frame, index in zip(
            batch.pixels_N3HW, batch.targets, batch.frames, batch.indices, strict=True
        )
    ]
    module.trainer.current_epoch = 4  # after training
    module.train_dataloader()
    images = module.first_images(6)
    assert len(images) == 6
    for (name, sample), (pixels_3HW, target, file) in zip(images, got, strict=False):
        assert name == file
        assert torch.equal(sample.pixels_3HW, pixels_3HW)
        assert torch.equal(sample.target.boxes_G4, target.boxes_G4)


def test_an_image_that_was_removed_after_training_ends_the_list_of_first_images(tiny, tmp_path):
    shutil.copytree(tiny["train"].parent, tmp_path / "copy")
    config = resolve(TrainConfig, {**tiny, "train": tmp_path / "copy" / tiny["train"].name})
    data = load(config.train)
    module = DetectionDataModule(config=config, train_data=data, val_data=data)
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)
    assert len(module.first_images()) == 8
    for record in data.records:
        record.path.unlink()
    assert module.first_images() == []


def test_close_augment_is_at_most_the_number_of_epochs(tiny):
    with pytest.raises(ConfigError, match="close_augment must be at most epochs, 2, found 3"):
        resolve(TrainConfig, {**tiny, "epochs": 2, "close_augment": 3})


@pytest.mark.slow
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
