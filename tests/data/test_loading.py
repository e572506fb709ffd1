"""Tests of `load`, which decodes every image and lists all faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retinanet import data
from retinanet.data import DataError

Write = Callable[..., Path]
CAT = ("cat", (1, 2, 30, 40))


def test_all_faulty_images_are_listed_and_can_be_left_out(write_voc: Write, write_image: Write) -> None:
    root = write_voc({stem: [CAT] for stem in "abcdefg"})
    folder = root / "JPEGImages"
    (folder / "a.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-300])
    (folder / "b.jpg").write_bytes(b"")
    (folder / "c.jpg").write_text("<html>")
    (folder / "d.jpg").unlink()
    write_image(folder / "e.jpg", 63, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folder / "f.jpg", 64, 48, exif=exif)
    with pytest.raises(DataError, match="6 faults") as caught:
        data.load(root)
    faults = {fault.file.name: fault.what for fault in caught.value.faults}
    assert list(faults) == [f"{stem}.jpg" for stem in "abcdef"]
    assert "truncated" in faults["a.jpg"]
    assert faults["b.jpg"] == "empty file"
    assert "not an image" in faults["c.jpg"]
    assert "not found" in faults["d.jpg"]
    assert faults["e.jpg"] == "expected 64x48 pixels as annotated, found 63x48"
    assert "found 48x64" in faults["f.jpg"]
    assert "EXIF" in faults["f.jpg"]
    assert all("--skip-invalid" in str(fault) for fault in caught.value.faults)
    valid = data.load(root, skip_invalid=True, workers=3)
    assert [r.path.name for r in valid.records] == ["g.jpg"]
    assert [r.image_id for r in valid.records] == [7]
    assert len(valid.faults) == 6
    assert "6 objects of missing or invalid image files were left out" in valid.notes


def test_one_error_lists_faults_of_objects_and_of_images(write_voc: Write) -> None:
    root = write_voc({"a": [("cat", (3, 3, 3, 3))], "b": [CAT], "c": [CAT]})
    (root / "JPEGImages" / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 faults\n.*a\.xml, object 1 of 1.*\n.*b\.jpg: empty"):
        data.load(root)
    valid = data.load(root, skip_invalid=True)
    assert [(r.path.name, len(r.boxes_G4)) for r in valid.records] == [("a.jpg", 0), ("c.jpg", 1)]


@pytest.mark.parametrize("kind", ["grey", "palette", "rgba", "sixteen", "exif", "suffix"])
def test_unusual_image_files_are_not_faults(write_voc: Write, kind: str) -> None:
    root = write_voc({"a": [CAT]})
    path = root / "JPEGImages" / "a.jpg"
    image = Image.open(path)
    image.load()
    exif = Image.Exif()
    exif[0x0112] = 8
    path.unlink()
    png = path.with_suffix(".png")
    {
        "grey": lambda: image.convert("L").save(path),
        "palette": lambda: image.quantize(16).save(png),
        "rgba": lambda: image.convert("RGBA").save(png),
        "sixteen": lambda: image.convert("L").convert("I").convert("I;16").save(png),
        "exif": lambda: image.transpose(Image.Transpose.ROTATE_270).save(path, exif=exif),
        "suffix": lambda: image.save(path, format="PNG"),
    }[kind]()
    assert data.load(root).num_objects == 1


def test_a_dataset_without_images_or_objects_is_an_error(write_voc: Write) -> None:
    with pytest.raises(DataError, match="expected objects, found none in 2 images"):
        data.load(write_voc({"a": [], "b": []}, folder="empty"))
    crowd = write_voc({"a": [CAT]}, folder="crowd")
    file = crowd / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    with pytest.raises(DataError, match=r"1 ignore regions \(crowd or difficult\) do not count"):
        data.load(crowd)
    invalid = write_voc({"a": [("cat", (3, 3, 3, 3))]}, folder="invalid")
    with pytest.raises(DataError, match="found none in 1 images; 1 faults were left out"):
        data.load(invalid, skip_invalid=True)
    (invalid / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match="at least one image, found none"):
        data.load(invalid)


def test_files_with_several_images_are_named(write_voc: Write) -> None:
    """Of a stack of a microscope, only the first plane is used: the boxes were drawn on one plane."""
    root = write_voc({"a": [CAT], "b": [CAT]})
    path = root / "JPEGImages" / "a.jpg"
    with Image.open(path) as image:
        image.save(path.with_suffix(".tif"), save_all=True, append_images=[image.copy()])
    path.unlink()
    (note,) = [note for note in data.load(root).notes if "several images" in note]
    assert note.startswith("1 file holds several images")
    assert note.endswith("a.tif")
