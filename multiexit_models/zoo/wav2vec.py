"""wav2vec 2.0 with exits, on the Wav2Vec2Model of Hugging Face's transformers.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations"
(NeurIPS 2020). The library's modules and weights are used as they are; only the cuts between
layers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from delen.errors import InvalidInput, MissingExtra
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import ZooEntry

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

PRETRAINED = "facebook/wav2vec2-base"
SAMPLE_RATE = 16_000
SHORTEST = 400
"""Samples of the base model's one frame."""
EXITS = 4
FULL_SCALE = 2.0**15
LIBRARY_EPSILON = 1e-7
"""What the library's feature extractor adds to a clip's variance."""


class StandardPcm(nn.Module):
    """int16 PCM ``[batch, samples]`` to float32 of mean 0 and variance 1 in each clip.

    The library's feature extractor does the same to samples scaled to -1..1.
    """

    def forward(self, pcm: Tensor) -> Tensor:
        samples = pcm.float() / FULL_SCALE
        centred = samples - samples.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        standard: Tensor = centred / (variance + LIBRARY_EPSILON).sqrt()
        return standard


class Frontend(nn.Module):
    """Samples ``[batch, samples]`` to inputs of the first encoder layer, ``[batch, t, d]``.

    The same modules in the same order as Wav2Vec2Model.forward without an attention mask, which
    the library's base models are trained without.
    """

    def __init__(self, model: Wav2Vec2Model) -> None:
        super().__init__()
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        self.position = model.encoder.pos_conv_embed
        self.norm = model.encoder.layer_norm
        self.dropout = model.encoder.dropout

    def forward(self, samples: Tensor) -> Tensor:
        projected = self.feature_projection(self.feature_extractor(samples).transpose(1, 2))[0]
        embedded: Tensor = self.dropout(self.norm(projected + self.position(projected)))
        return embedded


class MeanHead(nn.Module):
    """Mean over time of ``[batch, t, d]`` and one linear layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(features.mean(1))
        return logits


def wav2vec(
    model: Wav2Vec2Model, classes: int, samples: int, exits: int = EXITS
) -> MultiExitNetwork:
    """``exits`` exits after equal shares of the encoder layers; shares ``model``'s parameters.

    Inputs are int16 PCM ``[batch, samples]`` at the model's rate; features are ``[batch, t, d]``.
    LayerDrop and the library's masking in training are left out. Raises InvalidInput for models
    that normalise at the end of the encoder (``do_stable_layer_norm``) or have an adapter, for
    more exits than layers, and for clips shorter than one frame.
    """
    config = model.config
    if config.do_stable_layer_norm or config.add_adapter:
        raise InvalidInput(
            "this wav2vec 2.0 has do_stable_layer_norm or add_adapter set; only models with "
            "neither, such as the base ones, can be cut here",
            "weights",
        )
    layers: Sequence[nn.Module] = list(model.encoder.layers)
    if not 1 <= exits <= len(layers):
        raise InvalidInput(
            f"{exits} exits do not fit an encoder of {len(layers)} layers; choose 1 to "
            f"{len(layers)}",
            "exits",
        )
    if samples < (shortest := shortest_clip(config)):
        raise InvalidInput(
            f"a clip of {samples} samples is shorter than one frame of wav2vec 2.0; give at least "
            f"{shortest} samples",
            "shape",
        )
    ends = [len(layers) * (index + 1) // exits for index in range(exits)]
    starts = [0, *ends[:-1]]
    groups = [list(layers[start:end]) for start, end in zip(starts, ends, strict=True)]
    segments = [
        nn.Sequential(StandardPcm(), Frontend(model), *groups[0]),
        *(nn.Sequential(*group) for group in groups[1:]),
    ]
    heads = [MeanHead(config.hidden_size, classes) for _ in segments]
    return MultiExitNetwork(segments, heads)


def shortest_clip(config: Wav2Vec2Config) -> int:
    """The fewest samples that give the convolutions one frame."""
    samples = 1
    for kernel, stride in zip(
        reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
    ):
        samples = (samples - 1) * stride + kernel
    return samples


def load_model(weights: str | None) -> Wav2Vec2Model:
    """The base model with random weights for None, or for "DEFAULT" with the published ones.

    Raises MissingExtra without transformers, and InvalidInput for another name or where the
    weights are neither in the cache nor can be downloaded.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError as error:
        raise MissingExtra("transformers", "wav2vec2") from error
    if weights is None:
        return Wav2Vec2Model(Wav2Vec2Config())
    if weights != "DEFAULT":
        raise InvalidInput(
            f'wav2vec2-base has no weights named {weights!r}; there are "DEFAULT" '
            f"({PRETRAINED}) and none",
            "weights",
        )
    try:
        return Wav2Vec2Model.from_pretrained(PRETRAINED)
    except OSError as error:
        raise InvalidInput(
            f"the weights {PRETRAINED} could not be loaded: {str(error).splitlines()[0]} Put "
            "them into the cache of transformers, or leave the weights out",
            "weights",
        ) from error


ENTRIES: tuple[ZooEntry, ...] = (
    ZooEntry(
        name="wav2vec2-base",
        kind="audio",
        description="wav2vec 2.0 base, exits after encoder layers 3, 6, 9 and 12, for 16 kHz",
        shape=(SAMPLE_RATE,),
        smallest=SHORTEST,
        exits=EXITS,
        create=lambda classes, shape, weights: wav2vec(load_model(weights), classes, shape[0]),
        has_weights=True,
        recipe=Recipe(
            epochs=10,
            batch_size=32,
            muon_lr=5e-4,
            adam_lr=5e-4,
            muon_weight_decay=0.01,
            mirror=False,
        ),
        sample_rate=SAMPLE_RATE,
    ),
)
