"""Inputs varied at random while training, against overfitting.

The kind of input decides what varies (``augmentation``). Every draw comes from one generator on the
CPU, so its state is all that a resumed training needs to draw the same again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.train.recipe import Recipe

Augmentation = Callable[[Tensor, torch.Generator], Tensor]

LOUDEST = 32767
SPEED_RANGE = 0.1
SHIFT_SHARE = 0.1
GAIN_DECIBELS = 6.0
NOISE_DECIBELS = (10.0, 40.0)
NOISY_SHARE = 0.5
WORD_DROPOUT = 0.05
CHARACTER_DROPOUT = 0.01


def augmentation(input: InputSpec, recipe: Recipe) -> Augmentation:
    """The function that varies a batch ``[n, *shape]`` of ``input``, and keeps shape and dtype.

    Inputs that are neither images, nor audio, nor text stay as they are. Raises InvalidInput when
    the recipe's ``crop_padding`` is too large for the images.
    """
    if input.image is not None:
        _check_padding(input.shape, recipe.crop_padding)
        return lambda images, generator: augment_images(
            images, recipe.crop_padding, recipe.mirror, generator
        )
    if input.audio is not None:
        return augment_audio
    if input.text is not None:
        return augment_text
    return lambda inputs, generator: inputs


def _check_padding(shape: tuple[int, ...], padding: int) -> None:
    side = min(shape[:2])
    if not 0 <= padding < side:
        raise InvalidInput(
            f"crop_padding is {padding}; for images of {shape[0]} x {shape[1]} pixels it must be "
            f"from 0 to {side - 1}",
            "crop_padding",
        )


def augment_images(
    images: Tensor, padding: int, mirror: bool, generator: torch.Generator
) -> Tensor:
    """Each image cropped at its own offset; with ``mirror``, half of them left to right.

    ``images``: uint8 ``[n, height, width, channels]``, padded by reflection before the crop.
    """
    count, height, width = images.shape[:3]
    device = images.device
    channels_first = images.permute(0, 3, 1, 2).float()
    padded = F.pad(channels_first, (padding,) * 4, mode="reflect").to(torch.uint8)
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    if mirror:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    rows, columns = rows.to(device), columns.to(device)
    batch = torch.arange(count, device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]


def shorten(images: Tensor, side: int) -> Tensor:
    """uint8 ``[n, height, width, channels]`` scaled so that the shorter side has so many pixels."""
    shorter = min(images.shape[1:3])
    height, width = (round(pixels * side / shorter) for pixels in images.shape[1:3])
    return resize(images, height, width)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """uint8 ``[n, height, width, channels]`` scaled to this size; bilinear with antialiasing."""
    if images.shape[1:3] == (height, width):
        return images
    scaled = F.interpolate(
        images.permute(0, 3, 1, 2).float(), size=(height, width), mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def augment_audio(sound: Tensor, generator: torch.Generator) -> Tensor:
    """Each recording at its own speed, time, loudness, and half of them with noise.

    ``sound``: int16 ``[n, samples]``. Speed from 0.9 to 1.1 by linear resampling (Ko et al.,
    "Audio Augmentation for Speech Recognition", Interspeech 2015), begun up to a tenth of the
    length earlier or later with silence around; gain within 6 dB; white noise 10 to 40 dB below
    the recording's own level.
    """
    count, samples = sound.shape
    speed = 1 + SPEED_RANGE * _symmetric(count, generator)
    start = samples * SHIFT_SHARE * _symmetric(count, generator)
    gain = _ratio(GAIN_DECIBELS * _symmetric(count, generator))
    quietest, spread = NOISE_DECIBELS[1], NOISE_DECIBELS[1] - NOISE_DECIBELS[0]
    noise_gain = _ratio(-quietest + spread * torch.rand(count, 1, generator=generator))
    noise_gain *= torch.rand(count, 1, generator=generator) < NOISY_SHARE
    speed, start, gain, noise_gain = (
        drawn.to(sound.device) for drawn in (speed, start, gain, noise_gain)
    )
    moved = _sample_at(sound.float(), (torch.arange(samples, device=sound.device) - start) * speed)
    level = moved.square().mean(dim=1, keepdim=True).sqrt()
    noise = _white_noise(moved, generator) * level * noise_gain
    return ((moved + noise) * gain).round().clamp(-LOUDEST - 1, LOUDEST).to(torch.int16)


def _symmetric(count: int, generator: torch.Generator) -> Tensor:
    """Float32 ``[count, 1]``, uniform from -1 to 1."""
    return 2 * torch.rand(count, 1, generator=generator) - 1


def _ratio(decibels: Tensor) -> Tensor:
    return torch.pow(10.0, decibels / 20)


def _sample_at(signal: Tensor, times: Tensor) -> Tensor:
    """``signal [n, samples]`` at fractional ``times [n, m]``, linear between, silent outside."""
    last = signal.shape[1] - 1
    before = times.floor()
    share = times - before
    index = before.long()
    left = signal.gather(1, index.clamp(0, last))
    right = signal.gather(1, (index + 1).clamp(0, last))
    inside = (times >= 0) & (times <= last)
    return torch.where(inside, left * (1 - share) + right * share, 0.0)


def _white_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise drawn on the device of ``like``, which is much faster than on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator))
    there = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=there, device=like.device)


def augment_text(text: Tensor, generator: torch.Generator) -> Tensor:
    """Each text without some words and characters; the rest closes up.

    ``text``: uint8 ``[n, bytes]`` in UTF-8, padded with zeros at the end. A word goes with the
    space before it (word dropout: Iyyer et al., "Deep Unordered Composition", ACL 2015, section
    3.2), a character with all of its bytes. A text that would become empty stays as it is.
    """
    starts_word = text == ord(" ")
    starts_character = (text & 0b1100_0000) != 0b1000_0000
    lost = _dropped(starts_word, WORD_DROPOUT, generator)
    lost |= _dropped(starts_character, CHARACTER_DROPOUT, generator)
    written = text != 0
    kept = written & ~lost
    kept = torch.where(kept.any(dim=1, keepdim=True), kept, written)
    order = torch.sort(~kept, dim=1, stable=True).indices
    return torch.where(kept, text, 0).gather(1, order)


def _dropped(starts: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Bool like ``starts [n, bytes]``: whole groups, each from one start to the next."""
    draws = torch.rand(starts.shape[0], starts.shape[1] + 1, generator=generator)
    return (draws < share).to(starts.device).gather(1, starts.long().cumsum(dim=1))
