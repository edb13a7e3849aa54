"""The audio networks: the front end, wav2vec 2.0 beside the library's own, and their graphs."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the zoo needs torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.macs import cumulative_macs  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.zoo import audio, wav2vec  # noqa: E402
from multiexit_models.zoo.entry import ZooEntry  # noqa: E402

(WAV2VEC,) = wav2vec.ENTRIES


def tones(count: int, samples: int, level: float = 3000.0) -> NDArray[np.int16]:
    """Gliding tones in noise, each in the middle third of silence."""
    rng = np.random.default_rng(5)
    times = np.arange(samples) / samples
    clips = np.sin(2 * np.pi * np.outer(rng.uniform(50, 400, count), times * (1 + times)))
    clips = level * clips + level / 30 * rng.standard_normal((count, samples))
    clips[:, : samples // 3] = clips[:, -(samples // 3) :] = 0
    return clips.round().astype(np.int16)


def logits_of(network: MultiExitNetwork, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    with torch.no_grad():
        return torch.stack(network(torch.from_numpy(pcm))).numpy()


def check_export(
    network: MultiExitNetwork, pcm: NDArray[np.int16], segments: tuple[int, ...]
) -> None:
    """The graphs of ``segments`` compute what torch does, in batches of 1, 3 and all."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="graphs need onnxruntime")
    features = torch.from_numpy(pcm)
    for index, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True)):
        module = torch.nn.Sequential(segment, head).eval()
        with torch.no_grad():
            expected = module(features).numpy()
        if index in segments:
            session = onnxruntime.InferenceSession(
                onnx_bytes(module, features[:2]), providers=["CPUExecutionProvider"]
            )
            (name,) = (value.name for value in session.get_inputs())
            for count in (1, 3, len(pcm)):
                (logits,) = session.run(None, {name: features[:count].numpy()})
                np.testing.assert_allclose(logits, expected[:count], atol=1e-4)
        with torch.no_grad():
            features = segment(features)


def onnx_bytes(module: torch.nn.Module, inputs: torch.Tensor) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(module, (inputs,), dynamic_shapes=({0: batch},))
    exported = torch.onnx.export(program, dynamo=True, opset_version=18, verbose=False)
    assert exported is not None
    graph = io.BytesIO()
    exported.save(graph)
    return graph.getvalue()


def transformers_library() -> Any:
    return pytest.importorskip("transformers", reason="wav2vec needs transformers")


def tiny_wav2vec(**changes: Any) -> Any:
    transformers = transformers_library()
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(
        **{
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": (16, 16, 16),
            "conv_kernel": (10, 3, 2),
            "conv_stride": (5, 2, 2),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            **changes,
        }
    )
    return transformers.Wav2Vec2Model(config).eval()


def test_wav2vec_computes_what_the_library_does() -> None:
    model = tiny_wav2vec()
    extractor = transformers_library().Wav2Vec2FeatureExtractor(do_normalize=True)
    pcm = tones(3, 800)
    scaled = [clip.astype(np.float32) / 2**15 for clip in pcm]
    values = extractor(scaled, sampling_rate=16_000, return_tensors="pt").input_values
    network = wav2vec.wav2vec(model, classes=5, samples=800).eval()
    with torch.no_grad():
        expected = model(values).last_hidden_state
        features = torch.from_numpy(pcm)
        for segment in network.segments:
            features = segment(features)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert logits_of(network, pcm).shape == (4, 3, 5)


def test_wav2vec_exports_with_a_dynamic_batch() -> None:
    network = wav2vec.wav2vec(tiny_wav2vec(), classes=5, samples=800, exits=2).eval()
    check_export(network, tones(5, 800), segments=(0,))


def test_wav2vec_trains_every_parameter_but_the_librarys_mask() -> None:
    model = tiny_wav2vec()
    network = wav2vec.wav2vec(model, classes=5, samples=800).train()
    sum(exit.square().sum() for exit in network(torch.from_numpy(tones(2, 800)))).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []
    assert model.encoder.layers[0].feed_forward.output_dense.weight.grad is not None


def test_wav2vec_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(InvalidInput, match="do_stable_layer_norm"):
        wav2vec.wav2vec(tiny_wav2vec(do_stable_layer_norm=True), 5, 800)
    with pytest.raises(InvalidInput, match="5 exits do not fit an encoder of 4 layers"):
        wav2vec.wav2vec(tiny_wav2vec(), 5, 800, exits=5)
    model = tiny_wav2vec()
    shortest = wav2vec.shortest_clip(model.config)
    assert logits_of(wav2vec.wav2vec(model, 5, shortest).eval(), tones(1, shortest)).shape[0] == 4
    with pytest.raises(InvalidInput, match=f"at least {shortest} samples"):
        wav2vec.wav2vec(model, 5, shortest - 1)
    with pytest.raises(InvalidInput, match="DEFAULT"):
        WAV2VEC.make(5, (16_000,), "large")
    with pytest.raises(InvalidInput, match="samples"):
        WAV2VEC.make(5, (32, 32, 3), None)


def test_weights_that_cannot_be_fetched_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = transformers_library()

    def unreachable(name: str) -> None:
        raise OSError(f"We couldn't connect to the hub for {name}.\nMore lines.")

    monkeypatch.setattr(transformers.Wav2Vec2Model, "from_pretrained", unreachable)
    with pytest.raises(InvalidInput, match="could not be loaded: We couldn't connect") as caught:
        WAV2VEC.make(5, (16_000,), "DEFAULT")
    assert caught.value.field == "weights"


def tiny_audio(sample_rate: int = 2000) -> MultiExitNetwork:
    torch.manual_seed(2)
    return audio.compact_audio(sample_rate, classes=3).eval()


@pytest.mark.parametrize("entry", audio.ENTRIES, ids=lambda entry: entry.name)
def test_an_audio_entry_makes_four_exits_of_rising_cost(entry: ZooEntry) -> None:
    network = entry.make(10, entry.shape, None).eval()
    assert logits_of(network, tones(2, *entry.shape)).shape == (entry.exits, 2, 10)
    costs = cumulative_macs(network, torch.zeros(1, *entry.shape, dtype=torch.int16))
    assert all(cheap < dear for cheap, dear in pairwise(costs))
    assert costs[0] < 0.5 * costs[-1]


def test_the_digits_network_fits_a_bundle_of_one_megabyte() -> None:
    network = audio.compact_audio(8000, classes=10)
    assert sum(value.numel() * 4 for value in network.state_dict().values()) < 700_000


def test_every_band_hears_its_own_tone() -> None:
    front = audio.LogMel(8000)
    hertz = np.linspace(100, 3700, 150)
    clips = 5000 * np.sin(2 * np.pi * np.outer(hertz, np.arange(4000) / 8000))
    clips[:, :2000] = 0
    with torch.no_grad():
        heard = front(torch.from_numpy(clips.astype(np.int16)))
    loudest = heard[:, 0, :, -8:].mean(2).argmax(1).tolist()
    assert np.diff(loudest).min() >= -1  # a tone between two bands may fall to either
    assert set(loudest) >= set(range(3, audio.BANDS - 2))


@pytest.mark.parametrize("rate", [4000, 8000, 16_000, 44_100])
def test_no_band_is_empty(rate: int) -> None:
    bands = audio.LogMel(rate).bands
    assert bands.shape[0] == audio.BANDS
    assert (bands.sum((1, 2)) > 0).all()


def test_level_and_channel_hardly_matter() -> None:
    front = audio.LogMel(8000)
    pcm = tones(3, 8000, level=8000.0)
    with torch.no_grad():
        loud, quiet = front(torch.from_numpy(pcm)), front(torch.from_numpy(pcm // 4))
    assert loud.shape == (3, 1, audio.BANDS, 49)
    assert (loud - quiet).abs().mean() < 0.05
    assert torch.isfinite(front(torch.zeros(1, 8000, dtype=torch.int16))).all()


def test_autocast_does_not_reach_the_spectrum() -> None:
    front = audio.LogMel(8000)
    pcm = torch.from_numpy(tones(1, 8000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front(pcm), front(pcm.clone()))
        assert front(pcm).dtype == torch.float32


def test_audio_refuses_what_it_cannot_take() -> None:
    (digits, _) = audio.ENTRIES
    shortest = audio.shortest_clip(8000)
    assert logits_of(digits.make(2, (shortest,), None).eval(), tones(1, shortest)).shape[0] == 4
    with pytest.raises(InvalidInput, match=f"at least {shortest} samples") as caught:
        digits.make(10, (shortest - 1,), None)
    assert caught.value.field == "shape"
    with pytest.raises(InvalidInput, match="weights"):
        digits.make(10, (8000,), "DEFAULT")
