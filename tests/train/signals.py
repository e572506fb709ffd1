"""A signal at a chosen step of a training run."""

import os

from retinanet.train.detection_module import DetectionModule


class SignalAt:
    """Send this process a signal in the `count`-th call of a step method: `training_step` or `validation_step`."""

    def __init__(self, signum: int, method: str, count: int) -> None:
        self.signum = signum
        self.method = method
        self.count = count

    def __call__(self) -> None:
        original = getattr(DetectionModule, self.method)

        def step(module: DetectionModule, *args: object) -> object:
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), self.signum)
            return original(module, *args)

        setattr(DetectionModule, self.method, step)
