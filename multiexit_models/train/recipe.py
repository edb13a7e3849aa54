"""What a training does, as a value that a bundle records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What a training does. The same recipe, data, machine and torch give the same weights.

    ``exit_weights`` weigh the exits' losses; None: exit k of n has (k + 1) / n. With
    ``small_side``, the first ``small_share`` of the epochs have images scaled to that many pixels,
    which costs less (Tan and Le, EfficientNetV2, 2021). With ``sizes``, heights and widths below
    that of the images, each batch has its own size, drawn from them and the images' own.
    ``frozen_backbone`` trains the heads alone; the backbone stays as it is, batch norms included.
    """

    epochs: int = 30
    batch_size: int = 64
    exit_weights: tuple[float, ...] | None = None
    small_side: int | None = None
    small_share: float = 0.55
    sizes: tuple[tuple[int, int], ...] = ()
    muon_lr: float = 1e-2
    muon_weight_decay: float = 0.1
    adam_lr: float = 4e-3
    distil_share: float = 0.4
    distil_temperature: float = 2.0
    label_smoothing: float = 0.05
    crop_padding: int = 4
    mirror: bool = True
    frozen_backbone: bool = False
    seed: int = 0
