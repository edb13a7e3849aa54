"""One thread for torch, and CIFAR-10 in the form that its authors publish."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """torch computes with one thread: tiny networks are fastest so, and the bits the same."""
    try:
        import torch
    except ImportError:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def listed_once() -> Iterator[None]:
    """torch lists what it can export, which takes more than half of an export, once for all."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError):
            from torch.onnx._internal.exporter._registration import onnxscript_apis

            patch.setattr(
                onnxscript_apis, "get_torchlib_ops", cache(onnxscript_apis.get_torchlib_ops)
            )
        yield


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
