"""An engineer's own network, for docs/models.md: handwritten digits, and a classifier of them.

``python docs/own_backbone.py FOLDER`` writes scikit-learn's 1,797 digits as images, split into
train, val, calibration and test, and trains a small network on the first part alone. ``make`` is
what ``delen build --backbone docs/own_backbone.py:make`` calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

WEIGHTS = Path("digits.pt")
SIDE = 32
PARTS = {"train": (0, 1000), "val": (1000, 1150), "calibration": (1150, 1500), "test": (1500, 1797)}


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return torch.relu(x + self.second(x))


class DigitNet(nn.Module):
    """Float images [batch, 3, 32, 32], normalised as ImageNet's are, to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 16)
        self.middle = Block(16, 32)
        self.top = Block(32, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.top(self.middle(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


def make() -> nn.Module:
    """The trained network."""
    network = DigitNet()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return network.eval()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [1797, 32, 32, 3] and labels, in an order of their own."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    grey = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE))) for image in grey]
    order = np.random.default_rng(0).permutation(len(labels))
    return np.repeat(np.stack(large)[order, :, :, None], 3, axis=3), labels[order]


def write_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for part, (start, end) in PARTS.items():
        for number in range(start, end):
            place = folder / part / f"digit-{labels[number]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(place / f"{number}.png")


def train(images: np.ndarray, labels: np.ndarray) -> None:
    torch.manual_seed(0)
    network = DigitNet()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(12):
        for batch in torch.randperm(len(y)).split(50):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    torch.save(network.state_dict(), WEIGHTS)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pictures, classes = digits()
    write_images(Path(sys.argv[1]), pictures, classes)
    train(pictures[: PARTS["train"][1]], classes[: PARTS["train"][1]])
