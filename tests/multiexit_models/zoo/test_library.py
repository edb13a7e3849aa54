"""Classifiers of torchvision and timm by name, with their own state dicts. None is downloaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="these networks need torch: delen[train]")
models = pytest.importorskip("torchvision.models", reason="torchvision: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.network import IMAGENET_MEAN  # noqa: E402
from multiexit_models.zoo import library  # noqa: E402
from multiexit_models.zoo.registry import ZOO, zoo_entry  # noqa: E402
from tests.multiexit_models.tiny import random_images  # noqa: E402

FILE = Path("w.pt")
TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not TIMM, reason="timm is not installed: delen[timm]")


def test_zoo_names_go_before_those_of_the_libraries() -> None:
    assert zoo_entry("resnet18") is ZOO["resnet18"]
    assert zoo_entry("efficientnet_b0") is ZOO["efficientnet-b0"]


def test_a_classifier_of_torchvision_gets_exits() -> None:
    entry = zoo_entry("squeezenet1_1")
    assert (entry.kind, entry.shape, entry.exits) == ("image", (224, 224, 3), 4)
    network = entry.make(3, (64, 64, 3)).eval()
    with torch.no_grad():
        assert [tuple(exit.shape) for exit in network(random_images(2, 64, 64))] == [(2, 3)] * 4


def test_detectors_and_segmenters_have_no_name_here() -> None:
    for name in ("fasterrcnn_resnet50_fpn", "fcn_resnet50", "quantized_resnet18"):
        assert library._of_torchvision(name) == ()


@needs_timm
def test_images_are_those_of_the_librarys_weights() -> None:
    (vit,) = library.find("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert (vit.library, vit.side, vit.mean) == ("timm", 224, (0.5, 0.5, 0.5))
    both = library.find("inception_v3")
    assert [(found.library, found.side) for found in both] == [("torchvision", 299), ("timm", 299)]
    assert both[0].mean == IMAGENET_MEAN


@needs_timm
def test_the_library_is_the_one_whose_names_the_file_has() -> None:
    import timm

    torch.manual_seed(0)
    for make, expected in (
        (lambda: models.efficientnet_b0(num_classes=7), "torchvision"),
        (lambda: timm.create_model("efficientnet_b0", num_classes=7), "timm"),
    ):
        own = make()
        found = library.find("efficientnet_b0")
        network, module, became = library.load(found, 3, own.state_dict(), FILE)
        assert network.library == expected
        assert "7 outputs" in became
        mine = module.state_dict()
        kept = [key for key, tensor in own.state_dict().items() if tensor.shape == mine[key].shape]
        assert len(mine) - len(kept) == 2
        assert all(torch.equal(mine[key], own.state_dict()[key]) for key in kept)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_head_that_fits_the_classes_is_kept(name: str) -> None:
    torch.manual_seed(0)
    own = models.get_model(name, num_classes=3)
    _, module, became = library.load(library.find(name), 3, own.state_dict(), FILE)
    assert "kept" in became
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(module.eval()(images), own.eval()(images))


def test_another_networks_state_dict_is_refused() -> None:
    tensors = models.resnet34().state_dict()
    with pytest.raises(
        InvalidInput, match=r"than torchvision's resnet18: .* unexpected"
    ) as refused:
        library.load(library.find("resnet18"), 3, tensors, FILE)
    assert refused.value.field == "weights"


def test_without_timm_torchvision_is_enough_and_unknown_names_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert [found.library for found in library.find("densenet121")] == ["torchvision"]
    monkeypatch.setattr("multiexit_models.zoo.registry.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"delen\[timm\]") as refused:
        zoo_entry("vit_tiny_patch16_224")
    assert refused.value.field == "network"


@needs_timm
def test_published_weights_that_timm_has_none_of_are_refused() -> None:
    (network,) = library.find("seresnet18")
    with pytest.raises(InvalidInput, match="could not load the published weights") as refused:
        network.make(3, "DEFAULT")
    assert refused.value.field == "weights"
