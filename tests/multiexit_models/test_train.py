from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from multiexit_models.recipe import Recipe  # noqa: E402
from multiexit_models.train import (  # noqa: E402
    as_matrix,
    augment,
    batches,
    joint_loss,
    lr_factor,
    predict,
    resize,
    train,
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


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bright_or_dark():
    """128 images, half of them dark and half bright, and which is which."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(128) % 2
    noise = torch.randint(0, 110, (128, 8, 8, 3), generator=generator)
    return (noise + 120 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels


def test_loss_falls_and_every_exit_learns(tiny_network, bright_or_dark) -> None:
    images, labels = bright_or_dark
    network, losses = tiny_network(), []
    train(network, images, labels, RECIPE, lambda step, steps, loss: losses.append(loss))
    assert len(losses) == 6 * 4
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert not network.training
    accuracies = (predict(network, images).argmax(2) == labels).float().mean(1)
    assert accuracies.min() > 0.9


def test_same_seed_same_weights_and_another_seed_others(tiny_network, bright_or_dark) -> None:
    images, labels = bright_or_dark

    def trained(seed: int):
        network = tiny_network()
        recipe = Recipe(exit_weights=(0.5, 1.0), epochs=1, batch_size=32, small_side=6, seed=seed)
        train(network, images, labels, recipe, lambda *_: None)
        return network.state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_loss_that_is_no_number_stops_training(tiny_network, bright_or_dark) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.heads[1][-1].weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0 of 24"):
        train(network, *bright_or_dark, RECIPE, lambda *_: None)


def test_early_exits_learn_from_the_last_one() -> None:
    labels = torch.tensor([0])
    agreeing = [torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
    contradicting = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    only_first = Recipe(exit_weights=(1.0, 0.0), distil_share=1.0)
    assert joint_loss(agreeing, labels, only_first).item() == pytest.approx(0, abs=1e-6)
    assert joint_loss(contradicting, labels, only_first).item() > 1


def test_number_of_weights_must_be_that_of_exits() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        joint_loss([torch.zeros(1, 2)], torch.tensor([0]), Recipe(exit_weights=(1.0, 2.0)))


def test_rate_warms_up_and_ends_at_zero() -> None:
    assert [lr_factor(at) for at in (0.05, 0.1, 0.55, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])


def test_batches_draw_each_sample_once() -> None:
    drawn = torch.cat(list(batches(70, 32, torch.Generator().manual_seed(0))))
    assert len(drawn) == len(drawn.unique()) == 64


def test_crops_are_shifted_pieces_of_their_own_image() -> None:
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 8, 8, 3).contiguous()
    crops = augment(images, 2, torch.Generator().manual_seed(0))
    assert crops.dtype == torch.uint8
    assert torch.equal(crops, images)


def test_some_crops_are_mirrored_and_none_without_padding_is_shifted() -> None:
    images = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(32, 8, 8, 3).contiguous()
    crops = augment(images, 0, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(crop, images[0].flip(1)) for crop in crops]
    kept = [torch.equal(crop, images[0]) for crop in crops]
    assert any(mirrored)
    assert any(kept)
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))


def test_resize_keeps_dtype_and_a_flat_colour() -> None:
    images = torch.full((2, 8, 8, 3), 77, dtype=torch.uint8)
    assert torch.equal(resize(images, 6), torch.full((2, 6, 6, 3), 77, dtype=torch.uint8))
    assert resize(images, 8) is images


def test_matrix_of_a_convolution_shares_its_storage() -> None:
    weight = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    matrix = as_matrix(weight)
    matrix[1, 5] = 7
    assert matrix.shape == (4, 12)
    assert weight[1].sum() == 7
