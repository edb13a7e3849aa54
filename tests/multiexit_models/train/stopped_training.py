"""A small training that kills itself, for test_checkpoint.py.

python stopped_training.py CHECKPOINT step N: at the end of step N.
python stopped_training.py CHECKPOINT save N: while it writes its N-th checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from multiexit_models.data.dataset import Labelled
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.training import train
from tests.multiexit_models.tiny import INPUT, normalise

RECIPE = Recipe(epochs=2, batch_size=16, crop_padding=1)
STEPS = 2 * 5
SAVE_EVERY = 2


def make_network() -> MultiExitNetwork:
    """Two exits with dropout and batch norm, of which both draw or keep something."""
    torch.manual_seed(3)
    first = torch.nn.Sequential(
        normalise(),
        torch.nn.Conv2d(3, 8, 3, stride=2, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
    )
    second = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 16), torch.nn.ReLU())
    heads = [
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 4)),
        torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(16, 4)),
    ]
    return MultiExitNetwork([first, second], heads)


def make_data() -> Labelled:
    rng = np.random.default_rng(5)
    inputs = rng.integers(0, 256, (87, 8, 8, 3), dtype=np.uint8)
    return Labelled(inputs, rng.integers(0, 4, 87))


def run(checkpoint: Path | None, on_step: Callable[[int, int, float], None]) -> MultiExitNetwork:
    """Train to the end; a checkpoint is written at every second step, by its own clock."""
    network = make_network()
    steps = count()
    train(
        network,
        make_data(),
        RECIPE,
        input=INPUT,
        device="cpu",
        checkpoint=checkpoint,
        checkpoint_seconds=SAVE_EVERY,
        on_step=on_step,
        clock=lambda: next(steps),
    )
    return network


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_while_writing(number: int) -> None:
    real, writes = os.fsync, count(1)

    def fsync(descriptor: int) -> None:
        is_file = not Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
        if is_file and next(writes) == number:
            os.truncate(f"/proc/self/fd/{descriptor}", 1000)
            _kill()
        real(descriptor)

    os.fsync = fsync


if __name__ == "__main__":
    torch.set_num_threads(1)
    file, way, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if way == "save":
        _kill_while_writing(at)
    run(file, lambda step, steps, loss: _kill() if (way, at) == ("step", step) else None)
