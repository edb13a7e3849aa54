"""A network small enough to train in a second, and CIFAR-10 in the form its authors publish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from multiexit_models.network import MultiExitNetwork

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes with one thread: tiny networks are fastest so, and the bits the same."""
    torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_network() -> Callable[[], MultiExitNetwork]:
    """Makes two exits over uint8 images [n, 8, 8, 3] of two classes; the same seed each time."""
    torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")
    from multiexit_models.network import MultiExitNetwork
    from multiexit_models.zoo.residual import Normalise

    def halving(inputs: int, outputs: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(
            torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            torch.nn.BatchNorm2d(outputs),
            torch.nn.ReLU(),
        )

    def head(channels: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, 2)
        )

    def make() -> MultiExitNetwork:
        torch.manual_seed(3)
        first = torch.nn.Sequential(Normalise((0.5,) * 3, (0.25,) * 3), halving(3, 8))
        return MultiExitNetwork([first, halving(8, 12)], [head(8), head(12)])

    return make


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cifar-10-batches-bin: 5 files of 20 records and 40 test records."""
    folder = tmp_path_factory.mktemp("cifar-10-batches-bin")
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for name in names:
        count = 40 if name == "test_batch.bin" else 20
        records = rng.integers(0, 256, (count, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        records.tofile(folder / name)
    return folder


@pytest.fixture(scope="session")
def cifar_zip() -> Path:
    """The real CIFAR-10, where it is."""
    given = os.environ.get("DELEN_TEST_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    file = folder / "images" / "cifar10_32.zip"
    if not file.is_file():
        pytest.skip(f"the real CIFAR-10 is not at {file}; DELEN_TEST_DATA names its folder")
    return file
