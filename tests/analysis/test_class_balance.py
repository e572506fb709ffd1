"""Alpha of each class: hand-worked numbers, and a training run."""

import numpy as np
import pytest

from retinanet.analysis.class_balance import class_alphas
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.train import fit


def test_class_alphas():
    """Equal counts give alpha; the rarer class has the larger alpha; the mean weight over the objects is 1."""
    assert class_alphas([50, 50], alpha=0.75) == pytest.approx((0.75, 0.75))
    rare, common = class_alphas([10, 1000], alpha=0.75)
    assert 0.75 < rare < 1
    assert 0 < common < 0.75
    # beta 0.999: effective numbers 9.955 and 632.3; weights in proportion 1 / 9.955 to 1 / 632.3, mean over 1,010 is 1
    weights = np.array([1 / 9.9551, 1 / 632.305])
    weights /= (weights * [10, 1000]).sum() / 1010
    np.testing.assert_allclose([rare, common], 3 * weights / (3 * weights + 1), rtol=1e-4)
    with pytest.raises(ValueError, match="beta"):
        class_alphas([1], alpha=0.75, beta=1)


@pytest.mark.slow
def test_train_with_balanced_classes(tiny):
    """The rarer class has the larger alpha in the checkpoint."""
    result = fit(**tiny, epochs=1, balance_classes=True, max_steps=1)
    config = load_for_analysis(result.best, device="cpu").loss_config
    data = load(tiny["train"])
    counts = np.bincount(np.concatenate([r.labels_G for r in data.records]))
    assert (config.class_alpha[0] > config.class_alpha[1]) == (counts[0] < counts[1])
    with pytest.raises(ConfigError, match="one value for each of the 2 classes"):
        fit(**tiny, class_alpha=(0.5,), overwrite=True)
