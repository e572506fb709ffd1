"""Statistics of a dataset: hand-worked numbers, and the JSON document."""

from retinanet.analysis.statistics import statistics
from tests.analysis.datasets import dataset_from_boxes


def test_statistics_by_hand():
    data = dataset_from_boxes([[(0, 0, 0, 10, 20), (1, 5, 5, 9, 9)], [], [(1, 0, 0, 8, 8), (1, 0, 0, 9, 9, True)]])
    counts = statistics(data)
    assert (counts.images, counts.empty, counts.crowd, counts.objects) == (3, 1, 1, 3)
    assert counts.objects_K.tolist() == [1, 2]
    assert counts.images_K.tolist() == [1, 2]
    assert counts.per_image_P.tolist() == [2, 0, 1]
    assert counts.width_O.tolist() == [10, 4, 8]


def test_json_has_the_former_field_names():
    document = statistics(dataset_from_boxes([[(0, 0, 0, 10, 20)], []])).to_json()
    assert document["images"] == document["pictures"] == 2
    assert document["empty_images"] == document["empty_pictures"] == 1
    assert document["objects_per_image"] == document["objects_per_picture"] != {}
    assert document["classes"]["a"] == {"objects": 1, "images": 1, "pictures": 1}
