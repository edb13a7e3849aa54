"""What a training run is to do, as a value that a bundle can record."""

from __future__ import annotations

from dataclasses import dataclass

QUICK_EPOCHS = 3


@dataclass(frozen=True)
class Recipe:
    """What training does. The same recipe, data, machine and torch give the same weights.

    The first ``small_share`` of the epochs see images scaled to ``small_side`` pixels, which
    costs about half (Tan and Le, EfficientNetV2, 2021). ``exit_weights`` weigh the exits' losses.
    """

    exit_weights: tuple[float, ...] = (0.3, 0.4, 0.6, 0.8, 1.5)
    epochs: int = 30
    batch_size: int = 256
    small_side: int = 24
    small_share: float = 0.55
    muon_lr: float = 1e-2
    muon_weight_decay: float = 0.1
    adam_lr: float = 4e-3
    distil_share: float = 0.4
    distil_temperature: float = 2.0
    label_smoothing: float = 0.05
    crop_padding: int = 4
    seed: int = 0
