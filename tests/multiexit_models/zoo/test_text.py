"""The text network: what it computes, its padding mask, and its graphs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the zoo needs torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.macs import cumulative_macs  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.zoo import text  # noqa: E402

LENGTH = 30


def tiny(length: int = LENGTH) -> MultiExitNetwork:
    torch.manual_seed(0)
    return text.byte_transformer(5, length, width=16, attention_heads=2).eval()


def encoded(*texts: str, length: int = LENGTH) -> NDArray[np.uint8]:
    rows = np.zeros((len(texts), length), np.uint8)
    for row, string in zip(rows, texts, strict=True):
        data = string.encode()[:length]
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


TEXTS = ("where is my card", "ä", "", "x" * LENGTH, "what is the balance")


def chain(network: MultiExitNetwork, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        return torch.stack(network(torch.from_numpy(inputs))).numpy()


def test_the_entry_makes_four_exits_of_rising_cost() -> None:
    (entry,) = text.ENTRIES
    network = entry.make(150, entry.shape, None).eval()
    logits = chain(network, encoded("hello", "bye", length=entry.shape[0]))
    assert logits.shape == (entry.exits, 2, 150)
    costs = cumulative_macs(network, torch.zeros(1, *entry.shape, dtype=torch.uint8))
    assert all(cheap < dear for cheap, dear in pairwise(costs))
    assert costs[0] < 0.5 * costs[-1]


def test_padding_does_not_change_the_logits() -> None:
    network = tiny()
    longer = tiny(2 * LENGTH)
    state = network.state_dict()
    state["segments.0.0.position"] = longer.state_dict()["segments.0.0.position"]
    state["segments.0.0.position"][: -(-LENGTH // text.STRIDE)] = network.segments[0][0].position
    longer.load_state_dict(state)
    short = chain(network, encoded("where is my card", "ä"))
    padded = chain(longer, encoded("where is my card", "ä", length=2 * LENGTH))
    np.testing.assert_allclose(padded, short, atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    network = tiny()
    inputs = encoded(*TEXTS)
    alone = np.concatenate([chain(network, row[None]) for row in inputs], axis=1)
    np.testing.assert_allclose(chain(network, inputs), alone, atol=1e-5)
    assert np.isfinite(alone).all()


def test_the_mask_is_the_last_channel_of_the_features() -> None:
    network = tiny()
    with torch.no_grad():
        features = network.segments[1](network.segments[0](torch.from_numpy(encoded("12345"))))
    assert features.shape == (1, -(-LENGTH // text.STRIDE), 17)
    assert features[0, :, -1].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_training_reaches_every_parameter() -> None:
    network = tiny().train()
    sum(logits.square().sum() for logits in network(torch.from_numpy(encoded(*TEXTS)))).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_shapes_and_weights_that_cannot_be_are_refused() -> None:
    (entry,) = text.ENTRIES
    with pytest.raises(InvalidInput, match="at least 1 bytes") as caught:
        entry.make(2, (32, 32, 3), None)
    assert caught.value.field == "shape"
    with pytest.raises(InvalidInput, match="weights") as caught:
        entry.make(2, (128,), "DEFAULT")
    assert caught.value.field == "weights"
