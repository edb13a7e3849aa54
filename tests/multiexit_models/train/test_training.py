from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from delen.bundle.manifest import (  # noqa: E402
    AudioPreprocessing,
    InputSpec,
    TextPreprocessing,
)
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.data.dataset import Labelled  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.train.device import choose_device  # noqa: E402
from multiexit_models.train.recipe import Recipe  # noqa: E402
from multiexit_models.train.training import predict, train  # noqa: E402
from tests.multiexit_models.tiny import (  # noqa: E402
    DIGITS_INPUT,
    INPUT,
    DigitPlanes,
    digits,
    halving,
    two_exits,
)

RECIPE = Recipe(
    exit_weights=(0.5, 1.0),
    epochs=6,
    batch_size=32,
    small_side=6,
    crop_padding=1,
    muon_lr=0.1,
    adam_lr=0.05,
)


@pytest.fixture
def bright_or_dark() -> Labelled:
    """128 images, half of them dark and half bright, and which is which."""
    labels = np.arange(128) % 2
    noise = np.random.default_rng(5).integers(0, 110, (128, 8, 8, 3))
    return Labelled((noise + 120 * labels[:, None, None, None]).astype(np.uint8), labels)


def accuracies(network, data: Labelled) -> np.ndarray:
    return (predict(network, data.inputs).argmax(2) == data.labels).mean(axis=1)


def test_loss_falls_and_every_exit_learns(bright_or_dark) -> None:
    network, seen = two_exits(), []
    train(network, bright_or_dark, RECIPE, input=INPUT, on_step=lambda *step: seen.append(step))
    losses = [loss for _, _, loss in seen]
    assert [(step, steps) for step, steps, _ in seen] == [(n, 24) for n in range(1, 25)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert not network.training
    assert accuracies(network, bright_or_dark).min() > 0.9


def test_real_digits_are_learned_and_the_last_exit_knows_them_best() -> None:
    data = digits()
    training, test = data.take(np.arange(1200)), data.take(np.arange(1200, len(data)))
    torch.manual_seed(0)
    network = MultiExitNetwork(
        [torch.nn.Sequential(DigitPlanes(), halving(1, 8)), halving(8, 32)],
        [
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(features, 10))
            for features in (8 * 16, 32 * 4)
        ],
    )
    recipe = Recipe(epochs=6, batch_size=32, crop_padding=1, mirror=False)
    train(network, training, recipe, input=DIGITS_INPUT)
    first, last = accuracies(network, test)
    assert first > 0.8
    assert last > max(first, 0.9)


def test_sound_is_learned() -> None:
    class Frames(torch.nn.Module):
        def forward(self, sound):
            return sound.float().view(-1, 1, 256) / 32768

    labels = np.arange(64) % 2
    times = np.arange(256)
    pitch = np.where(labels, 0.4, 0.1)[:, None]
    sound = (9000 * np.sin(2 * np.pi * pitch * times)).astype(np.int16)
    torch.manual_seed(0)
    network = MultiExitNetwork(
        [
            torch.nn.Sequential(
                Frames(),
                torch.nn.Conv1d(1, 8, 9, stride=4),
                torch.nn.BatchNorm1d(8),
                torch.nn.ReLU(),
            )
        ],
        [
            torch.nn.Sequential(
                torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)
            )
        ],
    )
    recipe = Recipe(epochs=10, batch_size=16, muon_lr=0.1, adam_lr=0.05)
    input = InputSpec("int16", (256,), audio=AudioPreprocessing(8000))
    train(network, Labelled(sound, labels), recipe, input=input)
    assert accuracies(network, Labelled(sound, labels)).min() > 0.9


def test_text_is_learned() -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(256, 8, padding_idx=0)

        def forward(self, text):
            return self.embedding(text.long()).mean(1)

    labels = np.arange(64) % 2
    texts = [(b"good and fine " if label else b"bad, dull, poor") for label in labels]
    inputs = np.array([list(text.ljust(24, b"\0")) for text in texts], np.uint8)
    torch.manual_seed(0)
    network = MultiExitNetwork([Mean()], [torch.nn.Linear(8, 2)])
    recipe = Recipe(epochs=10, batch_size=16, muon_lr=0.1, adam_lr=0.05)
    input = InputSpec("uint8", (24,), text=TextPreprocessing("utf-8"))
    train(network, Labelled(inputs, labels), recipe, input=input)
    assert accuracies(network, Labelled(inputs, labels)).min() > 0.9


def test_same_seed_same_weights_and_another_seed_others(bright_or_dark) -> None:
    def trained(seed: int):
        network = two_exits()
        network.heads[0].insert(2, torch.nn.Dropout(0.3))
        train(network, bright_or_dark, replace(RECIPE, epochs=1, seed=seed), input=INPUT)
        return network.state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_callers_random_numbers_are_left_alone(bright_or_dark) -> None:
    network = two_exits()
    torch.manual_seed(7)
    np.random.seed(7)
    expected = (torch.rand(1), np.random.rand())
    torch.manual_seed(7)
    np.random.seed(7)
    train(network, bright_or_dark, replace(RECIPE, epochs=1), input=INPUT)
    assert (torch.rand(1), np.random.rand()) == expected


def test_a_frozen_backbone_stays_as_it_is_while_heads_learn(bright_or_dark) -> None:
    network = two_exits()
    network.segments[0].requires_grad_(False)
    needed = [p.requires_grad for p in network.parameters()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, bright_or_dark, replace(RECIPE, frozen_backbone=True), input=INPUT)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("heads.")}
    assert [p.requires_grad for p in network.parameters()] == needed
    assert accuracies(network, bright_or_dark).min() > 0.9


@pytest.mark.parametrize("saved", [False, True])
def test_loss_that_is_no_number_stops_training(bright_or_dark, tmp_path, saved: bool) -> None:
    network = two_exits()
    with torch.no_grad():
        network.heads[1][-1].weight.fill_(float("nan"))
    file = tmp_path / "training.pt" if saved else None
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0 of 24") as caught:
        train(network, bright_or_dark, RECIPE, input=INPUT, checkpoint=file)
    assert str(caught.value).endswith("there is no checkpoint yet") == saved
    assert not list(tmp_path.iterdir())


def test_the_last_good_checkpoint_stays_when_the_loss_is_lost(bright_or_dark, tmp_path) -> None:
    network, file = two_exits(), tmp_path / "training.pt"
    kept = {}

    def spoil(step: int, steps: int, loss: float) -> None:
        if step == 6:
            kept["bytes"] = file.read_bytes()
            with torch.no_grad():
                network.heads[0][-1].bias.fill_(float("inf"))

    with pytest.raises(FloatingPointError, match=r"at step 6 of 24; .*training.pt keeps the last"):
        train(
            network,
            bright_or_dark,
            RECIPE,
            input=INPUT,
            checkpoint=file,
            on_step=spoil,
            clock=lambda: 0.0,
        )
    assert file.read_bytes() == kept["bytes"]
    assert torch.load(file, weights_only=True)["moment"]["step"] == 4


def test_weights_that_are_not_finite_are_never_saved(bright_or_dark, tmp_path) -> None:
    class Spoiling(torch.autograd.Function):
        """Nothing forward, and backward a gradient that is no number from the sixth step on."""

        calls = 0

        @staticmethod
        def forward(context, values):
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            Spoiling.calls += 1
            return gradient * (float("nan") if Spoiling.calls >= 6 else 1.0)

    class Spoiled(torch.nn.Module):
        def forward(self, features):
            return Spoiling.apply(features)

    network, file = two_exits(), tmp_path / "training.pt"
    network.heads[1].append(Spoiled())
    with pytest.raises(FloatingPointError, match=r"no longer finite after step 6 of 24.*step 5$"):
        train(
            network,
            bright_or_dark,
            RECIPE,
            input=INPUT,
            checkpoint=file,
            checkpoint_seconds=0.0,
        )
    saved = torch.load(file, weights_only=True)
    assert saved["moment"]["step"] == 5
    assert all(torch.isfinite(value).all() for value in saved["weights"].values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 129}, "batch_size is 129, and there are 128 samples"),
        ({"batch_size": 0}, "batch_size 0; both must be 1 or more"),
        ({"epochs": 0}, "epochs is 0"),
        ({"exit_weights": (1.0,)}, "exit_weights has 1 numbers, and the network has 2"),
        ({"small_side": 9}, "small_side is 9; for images of 8 x 8"),
        ({"crop_padding": 8}, "crop_padding is 8"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(bright_or_dark, changed, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        train(two_exits(), bright_or_dark, replace(RECIPE, **changed), input=INPUT)


def test_data_that_do_not_fit_are_refused(bright_or_dark) -> None:
    other_shape = replace(INPUT, shape=(9, 8, 3))
    with pytest.raises(InvalidInput, match=r"uint8 \[8, 8, 3\], and the input is uint8 \[9, 8, 3"):
        train(two_exits(), bright_or_dark, RECIPE, input=other_shape)
    with pytest.raises(InvalidInput, match="small_side is for images"):
        train(two_exits(), bright_or_dark, RECIPE, input=replace(INPUT, image=None))
    labels = Labelled(bright_or_dark.inputs, bright_or_dark.labels + 1)
    with pytest.raises(InvalidInput, match="labels are from 1 to 2, and the network has 2 classes"):
        train(two_exits(), labels, RECIPE, input=INPUT)


def test_a_device_that_is_not_here_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InvalidInput, match=r"has \d+ CUDA devices here"):
        choose_device("cuda:99")
    for wrong in ("tpu", "meta", "cuda:x"):
        with pytest.raises(InvalidInput, match="must be auto, cpu, cuda"):
            choose_device(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_the_same_seed_gives_the_same_weights_too(bright_or_dark) -> None:
    def trained():
        network = two_exits()
        train(network, bright_or_dark, RECIPE, input=INPUT, device="cuda")
        return network

    first, again = trained(), trained()
    assert next(first.parameters()).device.type == "cpu"
    assert accuracies(first, bright_or_dark).min() > 0.9
    assert all(map(torch.equal, first.parameters(), again.parameters()))


def test_prediction_does_not_depend_on_batches_and_reads_mapped_files(
    bright_or_dark, tmp_path
) -> None:
    np.save(tmp_path / "inputs.npy", bright_or_dark.inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    network = two_exits()
    whole = predict(network, bright_or_dark.inputs, 128)
    assert whole.shape == (2, 128, 2)
    assert whole.dtype == np.float32
    seen: list[tuple[int, int]] = []
    again = predict(network, mapped, 50, on_sample=lambda *counts: seen.append(counts))
    np.testing.assert_allclose(again, whole, atol=1e-5)
    assert seen == [(50, 128), (100, 128), (128, 128)]
    with pytest.raises(InvalidInput, match="no inputs"):
        predict(network, bright_or_dark.inputs[:0])


def test_mapped_files_are_trained_on_alike(bright_or_dark, tmp_path) -> None:
    np.save(tmp_path / "inputs.npy", bright_or_dark.inputs)
    mapped = Labelled(np.load(tmp_path / "inputs.npy", mmap_mode="r"), bright_or_dark.labels)
    first, second = two_exits(), two_exits()
    recipe = replace(RECIPE, epochs=1)
    train(first, bright_or_dark, recipe, input=INPUT)
    train(second, mapped, recipe, input=INPUT)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
