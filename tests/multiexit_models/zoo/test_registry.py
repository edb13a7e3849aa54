from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="the zoo needs torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.macs import cumulative_macs  # noqa: E402
from multiexit_models.train.recipe import Recipe  # noqa: E402
from multiexit_models.zoo import audio, msdnet, residual, text, vision, wav2vec  # noqa: E402
from multiexit_models.zoo.entry import ZooEntry  # noqa: E402
from multiexit_models.zoo.registry import ZOO, zoo_entry  # noqa: E402
from multiexit_models.zoo.residual import RESIDUAL_CIFAR  # noqa: E402

IMAGES = (*msdnet.ENTRIES, *vision.ENTRIES, *residual.ENTRIES)


def test_zoo_holds_the_entries_of_every_family_once() -> None:
    entries = (*IMAGES, *audio.ENTRIES, *wav2vec.ENTRIES, *text.ENTRIES)
    assert set(ZOO.values()) == set(entries)
    assert len(ZOO) == len(entries)
    assert all(ZOO[name].name == name for name in ZOO)


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_entries_are_whole(entry: ZooEntry) -> None:
    assert entry.name == entry.name.lower()
    assert " " not in entry.name
    assert "\n" not in entry.description
    assert 3 <= entry.exits <= 5
    assert isinstance(entry.recipe, Recipe)
    if entry.recipe.exit_weights is not None:
        assert len(entry.recipe.exit_weights) == entry.exits
    ranks = {"image": 3, "audio": 1, "text": 1}
    assert len(entry.shape) == ranks[entry.kind]


def test_an_entry_is_found_by_its_name() -> None:
    assert zoo_entry("msdnet-cifar") is ZOO["msdnet-cifar"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="no network 'resnet19'") as refused:
        zoo_entry("resnet19")
    assert refused.value.field == "network"
    assert all(name in str(refused.value) for name in ZOO)


def test_the_zoo_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ZOO["mine"] = RESIDUAL_CIFAR  # type: ignore[index]


def test_the_shipped_network_is_made() -> None:
    network = RESIDUAL_CIFAR.make(10, RESIDUAL_CIFAR.shape, None).eval()
    sample = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with torch.no_grad():
        assert [tuple(exit.shape) for exit in network(sample)] == [(1, 10)] * 5
    macs = cumulative_macs(network, sample)
    assert macs == sorted(set(macs))


@pytest.mark.parametrize(
    ("classes", "shape", "weights", "field"),
    [
        (10, (32, 32, 3), "DEFAULT", "weights"),
        (10, (8, 8, 3), None, "shape"),
        (1, (32, 32, 3), None, "classes"),
    ],
)
def test_bad_input_is_refused(classes, shape, weights, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RESIDUAL_CIFAR.make(classes, shape, weights)
    assert refused.value.field == field


def test_the_registry_needs_neither_torchvision_nor_transformers() -> None:
    code = (
        "import sys, multiexit_models.zoo.registry; "
        "print([name for name in ('torchvision', 'transformers', 'timm') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
