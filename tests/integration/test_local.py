"""``delen.Engine``: the whole in one process, from a bundle's folder to a receipt."""

from __future__ import annotations

import logging
import wave
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delen
from delen.bundle.manifest import AudioPreprocessing, InputSpec, TextPreprocessing
from delen.errors import BundleError, ConfigError, InvalidInput, UnsupportedMediaType
from delen.sdk.inputs import Input

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def open_bundle(tmp_path: Path, brief_profile: None) -> Callable[..., delen.Engine]:
    """Opens a bundle on one thread."""

    def make(folder: Path, **how: Any) -> delen.Engine:
        how = {"state": tmp_path / "state", "backend": "cpu", "threads": 1, **how}
        return delen.Engine(folder, **how)

    return make


@pytest.fixture
def open_engine(
    open_bundle: Callable[..., delen.Engine], either_bundle: Path
) -> Callable[..., delen.Engine]:
    """Opens the tiny bundle of one runtime and then of the other."""
    return lambda **how: open_bundle(either_bundle, **how)


def test_a_sample_gives_a_result_and_a_batch_a_list(
    open_engine: Callable[..., delen.Engine],
) -> None:
    with open_engine() as engine:
        one, many = engine.infer(IMAGES[0]), engine.infer(IMAGES)
    assert isinstance(one, delen.Result)
    assert many[0].index == one.index
    assert len(many) == 5
    assert one.probabilities is not None
    assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
    energy = one.receipt.energy
    assert (energy.kind, energy.source, energy.scope) == ("estimated", "model", "processor")


def test_images_and_files_are_taken(
    open_engine: Callable[..., delen.Engine], tmp_path: Path
) -> None:
    pil = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")
    image = pil.fromarray(IMAGES[0][:, :, 0])
    buffer, file = BytesIO(), tmp_path / "image.png"
    image.save(buffer, format="PNG")
    image.save(file)
    with open_engine() as engine:
        expected = engine.infer(IMAGES[0]).index
        for x in (image, buffer.getvalue(), file, str(file)):
            assert engine.infer(x).index == expected


def test_without_a_power_source_energy_is_unknown(
    open_engine: Callable[..., delen.Engine],
) -> None:
    with open_engine(power="none") as engine:
        energy = engine.infer(IMAGES[0]).receipt.energy
        assert (energy.kind, energy.value, energy.predicted) == ("unknown", None, None)
        with pytest.raises(delen.InfeasibleBound, match="no energy source") as caught:
            engine.infer(IMAGES[0], max_energy=1.0)
        assert caught.value.nearest.max_energy is None
        assert not engine.plan(max_energy=1.0).feasible


def test_a_plan_says_what_bounds_would_buy(open_engine: Callable[..., delen.Engine]) -> None:
    with open_engine() as engine:
        plan = engine.plan(min_accuracy=0.6)
    assert isinstance(plan, delen.Preview)
    assert (plan.feasible, plan.guarantee, plan.model) == (True, 0.95, "tiny")
    assert [point.exit for point in plan.points] == [0, 1, 2]


def test_a_first_profile_is_announced_and_kept(
    open_engine: Callable[..., delen.Engine],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "delen"), open_engine():
        pass
    (kept,) = (tmp_path / "state").rglob("*.json")
    assert "measuring a quick one" in caplog.text
    assert str(kept) in caplog.text

    def refuse(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("delen.daemon.build_model.measure_profile", refuse)
    with open_engine() as engine:
        assert engine.infer(IMAGES[0]).exits == 3


def test_a_state_folder_that_cannot_be_written_does_not_stop_serving(
    open_engine: Callable[..., delen.Engine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "delen"), open_engine(state=tmp_path / "file") as engine:
        assert engine.infer(IMAGES[0]).exits == 3
    assert "measured again at the next start" in caplog.text


def test_wrong_arguments_are_refused(
    open_bundle: Callable[..., delen.Engine], tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"device\.backend is 'gpu'"):
        open_bundle(tiny_bundle, backend="gpu")
    with pytest.raises(ConfigError, match=r"device\.threads"):
        open_bundle(tiny_bundle, threads=0)
    with pytest.raises(BundleError, match="is not a folder"):
        delen.Engine(tmp_path / "none")


def test_a_closed_engine_refuses(open_engine: Callable[..., delen.Engine]) -> None:
    engine = open_engine()
    engine.close()
    with pytest.raises(delen.DelenError, match="closed"):
        engine.infer(IMAGES[0])
    engine.close()


def test_the_runtimes_of_one_network_answer_alike_and_keep_their_own_profiles(
    open_bundle: Callable[..., delen.Engine],
    tiny_bundle: Path,
    tiny_torch_bundle: Path,
    tmp_path: Path,
) -> None:
    answers = []
    for folder in (tiny_bundle, tiny_torch_bundle):
        with open_bundle(folder) as engine:
            answers.append(engine.infer(IMAGES))
    for one, other in zip(*answers, strict=True):
        assert (one.index, one.exit, one.reason) == (other.index, other.exit, other.reason)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        assert one.receipt.accuracy == other.receipt.accuracy
    kept = sorted(file.stem.split("c-")[-1] for file in (tmp_path / "state").rglob("*.json"))
    assert kept == ["cpu-1t-default", "torch-cpu-1t-default"]


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def test_recordings_are_taken(
    open_bundle: Callable[..., delen.Engine], write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    spec = InputSpec("int16", (16,), audio=AudioPreprocessing(8000))
    samples = np.random.default_rng(0).integers(-30000, 30000, 16).astype(np.int16)
    file = tmp_path / "recording.wav"
    file.write_bytes(wav(np.append(samples, [7, 7, 7])))
    with open_bundle(write_bundle(tmp_path / "tiny", input=spec)) as engine:
        expected = engine.infer(samples)
        forms: list[Input] = [wav(samples), file, str(file)]
        for x in forms:
            np.testing.assert_array_equal(engine.infer(x).probabilities, expected.probabilities)
        fast = engine.infer(wav(np.repeat(samples, 2), 16000))
        assert fast.probabilities.shape == expected.probabilities.shape
        with pytest.raises(InvalidInput, match="the recording does not decode"):
            engine.infer(wav(samples)[:-5])
        with pytest.raises(UnsupportedMediaType, match="it accepts recordings"):
            engine.infer(delen.Text("hello"))


def test_texts_are_taken(
    open_bundle: Callable[..., delen.Engine], write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    spec = InputSpec("uint8", (16,), text=TextPreprocessing("utf-8"))
    file = tmp_path / "note.txt"
    file.write_text("good morning\n")
    padded = np.frombuffer(b"good morning".ljust(16, b"\0"), np.uint8)
    with open_bundle(write_bundle(tmp_path / "tiny", input=spec)) as engine:
        expected = engine.infer(padded)
        forms: list[Input] = [delen.Text("good morning"), file, str(file)]
        for x in forms:
            np.testing.assert_array_equal(engine.infer(x).probabilities, expected.probabilities)
        both = engine.infer([delen.Text("good morning"), delen.Text("good night")])
        assert len(both) == 2
        np.testing.assert_allclose(both[0].probabilities, expected.probabilities, atol=1e-6)
        with pytest.raises(InvalidInput, match="the text is empty"):
            engine.infer(delen.Text(""))
        with pytest.raises(UnsupportedMediaType, match="not accept recordings; it accepts texts"):
            engine.infer(wav(np.zeros(16)))


def test_labels_are_taken_in_process_too(open_engine: Callable[..., delen.Engine]) -> None:
    with open_engine() as engine:
        result = engine.infer(np.zeros((4, 4, 1), np.uint8))
        feedback = engine.feedback({result.request_id: result.index, "nobody": 0})
        assert (feedback.accepted, feedback.wrong, feedback.unknown) == (1, 0, ("nobody",))
