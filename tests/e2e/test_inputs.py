"""Recordings, texts and programs of torch through a real daemon, by HTTP, SDK and command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import delen
from delen.bundle.manifest import AudioPreprocessing, InputSpec, TextPreprocessing

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

SOUND = InputSpec("int16", (16,), audio=AudioPreprocessing(8000))
WORDS = InputSpec("uint8", (16,), text=TextPreprocessing("utf-8"))
SAMPLES = np.random.default_rng(4).integers(-30000, 30000, 16).astype(np.int16)


@pytest.fixture(scope="module")
def speaking(
    launcher: Launcher, write_bundle: Callable[..., Path], tmp_path_factory: Any
) -> Iterator[Daemon]:
    """A daemon with a model of recordings and one of texts, which is the default."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder / "sound", name="sound", input=SOUND)
    write_bundle(folder / "words", name="words", input=WORDS)
    models = {"path": str(folder), "default": "words", "load": ["sound", "words"]}
    daemon = launcher.start({"models": models, "device": {"threads": 1}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture
def api(speaking: Daemon) -> Api:
    return speaking.api


def wav(samples: np.ndarray = SAMPLES, rate: int = 8000) -> bytes:
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def probabilities(api: Api, body: bytes, content_type: str, model: str) -> Any:
    answer = api.post(
        f"/v1/models/{model}/infer",
        body=body,
        content_type=content_type,
        query={"probabilities": "true"},
    )
    assert answer.status == 200, answer.body
    return answer.json()["probabilities"]


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/x-wav"])
def test_a_recording_is_answered_like_its_samples(api: Api, content_type: str) -> None:
    expected = probabilities(api, SAMPLES.tobytes(), "application/octet-stream", "sound")
    assert probabilities(api, wav(), content_type, "sound") == expected
    longer = np.append(SAMPLES, [1, 2, 3])
    assert probabilities(api, wav(longer), content_type, "sound") == expected


def test_a_recording_that_does_not_fit_is_refused(api: Api) -> None:
    def post(body: bytes) -> Any:
        return api.post("/v1/models/sound/infer", body=body, content_type="audio/wav")

    long = wav(np.zeros(8000 * 601, np.int16))
    error = post(long).error(413, "too_large")
    assert "lasts 601 s; at most 600 s" in error["error"]
    for body in (b"", b"RIFF", wav()[:-4], b"\0" * 1000):
        post(body).error(400, "invalid_input")


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=UTF-8"])
def test_a_text_is_answered_like_its_bytes(api: Api, content_type: str) -> None:
    padded = "Dělen".encode().ljust(16, b"\0")
    expected = probabilities(api, padded, "application/octet-stream", "words")
    assert probabilities(api, "Dělen".encode(), content_type, "words") == expected
    body = json.dumps({"input": "Dělen"}).encode()
    assert probabilities(api, body, "application/json", "words") == expected


def test_texts_in_json_are_a_batch(api: Api) -> None:
    answer = api.as_json({"input": ["good", "bad", "neither"], "max_latency_ms": 5000})
    assert answer.status == 200, answer.body
    singly = [api.as_json({"input": text}).json() for text in ("good", "bad", "neither")]
    assert [result["predictions"][0]["index"] for result in answer.json()["results"]] == [
        result["predictions"][0]["index"] for result in singly
    ]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "text/plain", 400, "invalid_input"),
        (b"caf\xe9", "text/plain", 400, "invalid_input"),
        (b"caf\xe9", "text/plain; charset=latin-1", 415, "unsupported_media_type"),
        (wav(), "audio/wav", 415, "unsupported_media_type"),
        (b"\x89PNG", "image/png", 415, "unsupported_media_type"),
        (b'{"input": ""}', "application/json", 400, "invalid_input"),
        (b'{"input": ["a", 1]}', "application/json", 400, "invalid_input"),
        (b'{"input": "\\ud800"}', "application/json", 400, "invalid_input"),
    ],
)
def test_what_is_no_text_is_refused(
    api: Api, body: bytes, content_type: str, status: int, code: str
) -> None:
    api.post("/v1/infer", body=body, content_type=content_type).error(status, code)


def test_the_description_names_every_media_type(api: Api) -> None:
    document = api.get("/openapi.json").json()
    taken = document["paths"]["/v1/infer"]["post"]["requestBody"]["content"]
    assert {"audio/wav", "audio/x-wav", "text/plain", "image/png"} <= taken.keys()
    told = {model["name"]: model["input"] for model in api.get("/v1/models").json()["models"]}
    assert told["sound"]["audio"] == {"sample_rate": 8000}
    assert told["words"]["text"] == {"encoding": "utf-8"}


def test_the_sdk_sends_recordings_and_texts(speaking: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "recording.wav"
    file.write_bytes(wav())
    with delen.Client(speaking.url) as client:
        expected = client.infer(SAMPLES, model="sound")
        for x in (file, str(file), wav()):
            sound = client.infer(x, model="sound")
            np.testing.assert_array_equal(sound.probabilities, expected.probabilities)
        one = client.infer(delen.Text("good"))
        both = client.infer([delen.Text("good"), delen.Text("bad")], min_accuracy=0.5)
        assert (len(both), one.model) == (2, "words")
        with pytest.raises(delen.InvalidInput, match="the text is empty"):
            client.infer(delen.Text(""))


def test_the_command_line_takes_files_of_both(
    speaking: Daemon, tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    (tmp_path / "note.txt").write_text("good morning\n")
    (tmp_path / "recording.wav").write_bytes(wav())
    for file, model in (("note.txt", "words"), ("recording.wav", "sound")):
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "delen"), "infer", file, "--model", model, "--json"],
            cwd=tmp_path,
            env=environment(DELEN_URL=speaking.url),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["model"] == model


def test_a_bundle_of_torch_is_served_with_the_same_receipts(
    launcher: Launcher, tiny_bundle: Path, tiny_torch_bundle: Path, tmp_path: Path
) -> None:
    for source, name in ((tiny_bundle, "graph"), (tiny_torch_bundle, "program")):
        manifest = shutil.copytree(source, tmp_path / "models" / name) / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": name}))
    models = {"path": str(tmp_path / "models"), "default": "program", "load": ["graph", "program"]}
    daemon = launcher.start({"models": models, "device": {"threads": 1}})
    device = daemon.api.get("/readyz").json()["device"]
    assert (device["backend"], device["provider"]) == ("torch", "torch-cpu")
    graph = daemon.api.get("/v1/models/graph").json()
    assert "-cpu-1t" in graph["profile"]["device"]
    assert "torch" not in graph["profile"]["device"]
    image = np.random.default_rng(1).integers(0, 256, (4, 4, 1), dtype=np.uint8)
    one, other = (
        daemon.api.raw(image, f"/v1/models/{model}/infer", min_accuracy=0.6).json()
        for model in ("graph", "program")
    )
    assert one.keys() == other.keys()
    assert one["receipt"].keys() == other["receipt"].keys()
    assert one["receipt"]["accuracy"] == other["receipt"]["accuracy"]
    assert (one["exit"], one["reason"]) == (other["exit"], other["reason"])
    assert one["predictions"][0]["index"] == other["predictions"][0]["index"]
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def test_a_daemon_of_onnx_bundles_has_no_torch(speaking: Daemon) -> None:
    assert speaking.api.as_json({"input": "good"}).status == 200
    assert "libtorch" not in Path(f"/proc/{speaking.process.pid}/maps").read_text()
