"""A compact multi-exit network for spoken words over raw PCM, at any sample rate.

Log-mel bands, then residual depthwise-separable convolutions, as in the keyword-spotting networks
of Zhang et al., "Hello Edge" (2017). The spectrum is part of the first segment, so that a client
sends samples alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import ZooEntry
from multiexit_models.zoo.residual import Residual

BANDS = 36
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.020
LOWEST_HZ = 60.0
HIGHEST_SHARE = 0.95
"""Of half the sample rate: above it, recorders filter differently."""
EMPHASIS_HZ = 1000.0
EVERY_BIN_TO_HZ = 2000.0
"""Above it bands are wide, and every second bin, which the Hann window blurs anyway, is enough."""
FULL_SCALE = 2.0**15
FLOOR = 1e-5
"""Power, as a share of the clip's loudest band, below which a band counts as silent: -50 dB."""
QUIETEST = 1e-9
LEAST_SPREAD = 0.1
LEAST_FRAMES = 5
WIDTHS = (32, 64, 96, 112)
RECIPE = Recipe(epochs=40, batch_size=64, mirror=False)


def mel(hertz: Tensor) -> Tensor:
    """The mel scale of O'Shaughnessy, "Speech Communication" (1987)."""
    return 2595 * torch.log10(1 + hertz / 700)


def mel_weights(sample_rate: int, window: int, bands: int) -> Tensor:
    """Triangles evenly spaced in mel over the bins of a spectrum: ``[bands, window // 2 + 1]``.

    A flank is never narrower than one bin, so that no band is empty. High frequencies, where
    speech is weak, are emphasised by up to the whole of what lies under ``EMPHASIS_HZ``.
    """
    spacing = sample_rate / window
    hertz = torch.arange(window // 2 + 1) * spacing
    low, high = mel(torch.tensor([LOWEST_HZ, HIGHEST_SHARE * sample_rate / 2]))
    edges = 700 * (10 ** (torch.linspace(float(low), float(high), bands + 2) / 2595) - 1)
    lower, centre, upper = (edges[first : first + bands, None] for first in range(3))
    rising = (hertz - lower) / (centre - lower).clamp_min(spacing)
    falling = (upper - hertz) / (upper - centre).clamp_min(spacing)
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return triangles * hertz.square() / (hertz.square() + EMPHASIS_HZ**2)


class LogMel(nn.Module):
    """int16 PCM ``[batch, samples]`` to normalised log-mel bands ``[batch, 1, bands, frames]``.

    The Fourier transform of each Hann window is one convolution with fixed filters, which any
    runtime has. Two things of a clip are taken out: its level, by measuring power against the
    clip's loudest band, and the channel (microphone, room, in part the voice), by subtracting
    each band's mean over the clip, in which frames weigh as much as they are above the floor, so
    that silence around the word does not count.
    """

    waves: Tensor
    bands: Tensor

    def __init__(self, sample_rate: int, bands: int = BANDS) -> None:
        super().__init__()
        window = 2 * round(sample_rate * WINDOW_SECONDS / 2)
        self.hop = round(sample_rate * HOP_SECONDS)
        weights = mel_weights(sample_rate, window, bands)
        bins = torch.arange(window // 2 + 1)
        thinned = (bins * sample_rate / window > EVERY_BIN_TO_HZ) & (bins % 2 == 1)
        used = (weights.sum(0) > 0) & ~thinned
        bins = bins[used].double()
        angles = 2 * math.pi / window * torch.outer(bins, torch.arange(window).double())
        waves = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(window).double()
        self.register_buffer("waves", waves.float()[:, None])
        self.register_buffer("bands", weights[:, used].repeat(1, 2)[..., None])

    def forward(self, pcm: Tensor) -> Tensor:
        # In bfloat16 the rounding of loud samples would drown the weak bands.
        with torch.autocast(pcm.device.type, enabled=False):
            samples = pcm.float()[:, None] / FULL_SCALE
            spectrum = F.conv1d(samples, self.waves, stride=self.hop)
            power = F.conv1d(spectrum.square(), self.bands)
            loudest = power.amax((1, 2), keepdim=True).clamp_min(QUIETEST)
            heard = torch.log(power / loudest + FLOOR) - math.log(FLOOR)
            weights = heard.mean(1, keepdim=True)
            weights = weights / weights.sum(2, keepdim=True).clamp_min(LEAST_SPREAD)
            centred = heard - (heard * weights).sum(2, keepdim=True)
            spread = centred.square().mean((1, 2), keepdim=True).sqrt()
            return (centred / spread.clamp_min(LEAST_SPREAD))[:, None]


def normalised(convolution: nn.Conv2d) -> nn.Sequential:
    """``convolution``, batch norm and ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def separable(inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """A 3 x 3 convolution within each channel, then a 1 x 1 one across them."""
    return nn.Sequential(
        normalised(nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)),
        normalised(nn.Conv2d(inputs, outputs, 1, bias=False)),
    )


class TimeMeanHead(nn.Module):
    """``[batch, channels, height, t]`` to logits; height is frequency.

    Each channel is weighed over frequency, since vowels differ in where their bands lie; over time
    only the mean is kept, since when a word is said does not matter.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.over_frequency = nn.Sequential(
            normalised(nn.Conv2d(channels, channels, (height, 1), groups=channels, bias=False)),
            normalised(nn.Conv2d(channels, width, 1, bias=False)),
        )
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.over_frequency(features).mean((2, 3))))
        return logits


def compact_audio(sample_rate: int, classes: int) -> MultiExitNetwork:
    """Four exits over int16 PCM ``[batch, samples]`` at ``sample_rate`` Hz.

    The first segment has half the bands, the second a quarter, the last two an eighth; frames are
    halved in the first and in the third. Clips have ``shortest_clip`` samples or more.
    """
    first, second, third, last = WIDTHS
    segments = [
        nn.Sequential(
            LogMel(sample_rate),
            normalised(nn.Conv2d(1, first, 5, 2, 2, bias=False)),
            Residual(separable(first, first)),
        ),
        nn.Sequential(separable(first, second, (2, 1)), Residual(separable(second, second))),
        nn.Sequential(
            separable(second, third, 2),
            Residual(separable(third, third)),
            Residual(separable(third, third)),
        ),
        nn.Sequential(
            separable(third, last),
            Residual(separable(last, last)),
            Residual(separable(last, last)),
        ),
    ]
    heights = [-(-BANDS // shrink) for shrink in (2, 4, 8, 8)]
    head_widths = (second, second, third, last)
    heads = [
        TimeMeanHead(channels, height, width, classes)
        for channels, height, width in zip(WIDTHS, heights, head_widths, strict=True)
    ]
    return MultiExitNetwork(segments, heads)


def shortest_clip(sample_rate: int) -> int:
    """Samples of ``LEAST_FRAMES`` windows."""
    frames = (LEAST_FRAMES - 1) * HOP_SECONDS + WINDOW_SECONDS
    return math.ceil(sample_rate * frames)


def _entry(name: str, sample_rate: int, description: str) -> ZooEntry:
    return ZooEntry(
        name=name,
        kind="audio",
        description=description,
        shape=(sample_rate,),
        smallest=shortest_clip(sample_rate),
        exits=len(WIDTHS),
        create=lambda classes, shape, weights: compact_audio(sample_rate, classes),
        recipe=RECIPE,
        sample_rate=sample_rate,
    )


ENTRIES: tuple[ZooEntry, ...] = (
    _entry("audio-digits", 8_000, "compact network for spoken digits, 8 kHz; trains in minutes"),
    _entry("audio-commands", 16_000, "compact network for spoken commands, 16 kHz"),
)
