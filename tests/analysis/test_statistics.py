"""Statistics of a dataset, by hand."""

from retinanet.analysis.statistics import statistics
from tests.analysis.made import made_data


def test_statistics_by_hand():
    data = made_data([[(0, 0, 0, 10, 20), (1, 5, 5, 9, 9)], [], [(1, 0, 0, 8, 8), (1, 0, 0, 9, 9, True)]])
    found = statistics(data)
    assert (found.images, found.empty, found.crowd, found.objects) == (3, 1, 1, 3)
    assert found.objects_K.tolist() == [1, 2]
    assert found.images_K.tolist() == [1, 2]
    assert found.per_image_P.tolist() == [2, 0, 1]
    assert found.width_O.tolist() == [10, 4, 8]
