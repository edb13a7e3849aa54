"""State dicts as they are found: wrapped, prefixed, with another head, pickled with objects."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="weights need torch: delen[train]")

from torch import nn  # noqa: E402

from delen.errors import InvalidInput, MissingExtra  # noqa: E402
from multiexit_models.train.state_dict import fill, filled_classifier  # noqa: E402
from multiexit_models.train.weights import StoredWeights, read_weights  # noqa: E402


def make(classes: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    network = nn.Sequential()
    network.add_module("body", body)
    network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network.add_module("fc", nn.Linear(4, classes))
    return network


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(8)
    return make(3)


def prefixed(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def same(one: nn.Module, two: nn.Module) -> bool:
    mine, others = one.state_dict(), two.state_dict()
    return all(torch.equal(mine[name], others[name]) for name in others)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": tensors, "optimizer": {"lr": 0.1}},
        lambda tensors: {"epoch": 3, "model_state_dict": tensors, "loss": 0.1},
        lambda tensors: {"state_dict": prefixed(tensors, "model.")},
        lambda tensors: prefixed(tensors, "module."),
        lambda tensors: {"model": prefixed(tensors, "module._orig_mod.")},
        lambda tensors: prefixed(tensors, "_orig_mod.module.model."),
        lambda tensors: {k: v for k, v in tensors.items() if "num_batches" not in k},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(
    trained: nn.Module, tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    file = tmp_path / "w.pt"
    torch.save(wrap(trained.state_dict()), file)
    stored = read_weights(file)
    assert not stored.has_exits
    network, became = filled_classifier(make, 3, stored.tensors, file, "this network")
    assert same(network, trained)
    assert "kept" in became
    other = make(3)
    fill(other, stored.tensors, file, "this network")
    assert same(other, trained)


def test_a_prefix_that_the_network_has_itself_stays(trained: nn.Module, tmp_path: Path) -> None:
    wrapper = nn.ModuleDict({"model": trained})
    torch.save(wrapper.state_dict(), tmp_path / "w.pt")
    other = nn.ModuleDict({"model": make(3)})
    fill(other, read_weights(tmp_path / "w.pt").tensors, tmp_path / "w.pt", "this network")
    assert same(other, wrapper)


def test_a_head_for_other_classes_is_left_out(trained: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    network, became = filled_classifier(make, 5, trained.state_dict(), file, "this network")
    assert same(network.body, trained.body)
    assert network.fc.out_features == 5
    assert "3 outputs" in became and "5 classes" in became
    headless = {k: v for k, v in trained.state_dict().items() if not k.startswith("fc.")}
    network, became = filled_classifier(make, 3, headless, file, "this network")
    assert same(network.body, trained.body)
    assert "missing" in became


def test_what_does_not_fit_is_named_and_counted(trained: nn.Module, tmp_path: Path) -> None:
    tensors = trained.state_dict()
    tensors["body.0.weight"] = torch.zeros(4, 1, 3, 3)
    del tensors["body.1.running_mean"]
    tensors |= {f"decoder.{number}": torch.zeros(1) for number in range(7)}
    for load in (
        lambda: fill(make(3), tensors, tmp_path / "w.pt", "net.py:make"),
        lambda: filled_classifier(make, 3, tensors, tmp_path / "w.pt", "net.py:make"),
    ):
        with pytest.raises(InvalidInput, match=r"of another network than net\.py:make") as refused:
            load()
        assert refused.value.field == "weights"
        said = str(refused.value)
        assert "1 of its tensors are missing (body.1.running_mean)" in said
        assert "7 of its tensors are unexpected (decoder.0, decoder.1, decoder.2, ...)" in said
        assert "body.0.weight [4, 1, 3, 3], not [4, 3, 3, 3]" in said


def test_a_file_of_safetensors_is_read(
    trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors: delen[timm]")
    file = tmp_path / "weights.bin"
    safetensors.save_file(trained.state_dict(), file)
    network, _ = filled_classifier(make, 3, read_weights(file).tensors, file, "this network")
    assert same(network, trained)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"weights\.bin cannot be read"):
        read_weights(file)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(MissingExtra, match=r"safetensors is not installed.*delen\[timm\]"):
        read_weights(file)


def save_scripted(network: nn.Module, file: Path) -> None:
    torch.jit.script(network).save(str(file))


@pytest.mark.parametrize(
    "save",
    [
        lambda network, file: torch.save(network, file),
        lambda network, file: torch.save(network, file, _use_new_zipfile_serialization=False),
        lambda network, file: torch.save({"model": network}, file),
        lambda network, file: torch.save(
            {"model": network.state_dict(), "args": argparse.Namespace(lr=1)}, file
        ),
        save_scripted,
    ],
    ids=["module", "old format", "wrapped module", "arguments", "TorchScript"],
)
def test_pickled_objects_are_refused_with_what_to_save_instead(
    trained: nn.Module, tmp_path: Path, save: Callable[[nn.Module, Path], None]
) -> None:
    file = tmp_path / "w.pt"
    save(trained, file)
    with pytest.raises(InvalidInput, match=r"torch\.save\(module\.state_dict\(\)") as refused:
        read_weights(file)
    assert refused.value.field == "weights"
    assert str(file) in str(refused.value)


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_nothing_that_could_run_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Bomb(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match="never unpickled"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"", "cannot be read"),
        (b"junk", "cannot be read"),
        (b"PK\x03\x04" + bytes(100), "cannot be read"),
        ([1, 2], "holds a list"),
        ({}, "holds no state dict"),
        ({"epoch": 3, "loss": 0.1}, "but epoch, loss"),
        ({"model": "resnet18"}, "holds no state dict"),
        ({"weights": {"epoch": 3}}, "holds no state dict"),
    ],
)
def test_what_holds_no_state_dict_is_said(tmp_path: Path, contents: Any, says: str) -> None:
    file = tmp_path / "w.pt"
    if isinstance(contents, bytes):
        file.write_bytes(contents)
    else:
        torch.save(contents, file)
    with pytest.raises(InvalidInput, match=says) as refused:
        read_weights(file)
    assert refused.value.field == "weights"
    assert str(file) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.pt cannot be read"):
        read_weights(tmp_path / "none.pt")


def test_weights_of_exits_are_told_from_a_networks_alone(trained: nn.Module) -> None:
    exits = {f"segments.{name}": tensor for name, tensor in trained.state_dict().items()}
    for tensors, expected in ((exits, True), (trained.state_dict(), False)):
        assert StoredWeights(Path("w.pt"), tensors, None, None, None).has_exits is expected
