from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import MANIFEST, load_bundle
from delen.errors import BundleError

Edit = Callable[[Callable[[dict[str, Any]], None]], Path]


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


@pytest.fixture
def edit(copy: Path) -> Edit:
    """Changes the manifest of the copy and returns its folder."""

    def change(how: Callable[[dict[str, Any]], None]) -> Path:
        document = json.loads((copy / MANIFEST).read_text())
        how(document)
        (copy / MANIFEST).write_text(json.dumps(document))
        return copy

    return change


def put(folder: Path, file: str, contents: bytes) -> None:
    """Replace a file and vouch for it in the manifest, as whoever makes bundles could."""
    (folder / file).write_bytes(contents)
    document = json.loads((folder / MANIFEST).read_text())
    document["files"][file] = {
        "sha256": hashlib.sha256(contents).hexdigest(),
        "size": len(contents),
    }
    (folder / MANIFEST).write_text(json.dumps(document))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


def test_a_bundle_is_read_as_it_was_written(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    text = (tiny_bundle / MANIFEST).read_text()
    assert bundle.manifest.to_json() == text
    assert bundle.digest == hashlib.sha256(text.encode()).hexdigest()
    assert bundle.name == "tiny"
    assert [exit.features for exit in bundle.exits] == [(16,), (16,), None]
    assert bundle.calibration.exits == 3
    for segment, exit in enumerate(bundle.exits):
        assert bundle.graph(segment) == (tiny_bundle / exit.graph).read_bytes()


def test_a_path_may_be_text(tiny_bundle: Path) -> None:
    assert load_bundle(str(tiny_bundle)).path == tiny_bundle


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} is not a folder" in refusal(tmp_path / "none")


def test_a_file_is_no_bundle(tiny_bundle: Path) -> None:
    assert "is not a folder" in refusal(tiny_bundle / MANIFEST)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert f"{tmp_path} is not a bundle: it has no {MANIFEST}" in refusal(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_named(copy: Path, text: bytes) -> None:
    (copy / MANIFEST).write_bytes(text)
    assert refusal(copy).startswith(f"{copy / MANIFEST} cannot be read as JSON")


@pytest.mark.parametrize("document", [[], 3, None, "bundle"])
def test_a_manifest_is_an_object(copy: Path, document: object) -> None:
    (copy / MANIFEST).write_text(json.dumps(document))
    assert "must be an object" in refusal(copy)


@pytest.mark.parametrize("document", [{}, {"format": "triton"}])
def test_a_foreign_manifest_is_no_delen_bundle(copy: Path, document: object) -> None:
    (copy / MANIFEST).write_text(json.dumps(document))
    assert "this is not a delen bundle" in refusal(copy)


def test_a_newer_bundle_asks_for_an_upgrade(edit: Edit) -> None:
    folder = edit(lambda document: document.update(schema=4, novelty="x"))
    assert "schema 4 is newer than 3, the newest this delen reads; upgrade it" in refusal(folder)


SOUND = {"dtype": "int16", "shape": [16], "image": None, "audio": {"sample_rate": 8000}}
WORDS = {"dtype": "uint8", "shape": [16], "image": None, "text": {"encoding": "utf-8"}}


@pytest.mark.parametrize("input", [SOUND, WORDS], ids=["audio", "text"])
def test_recordings_and_texts_are_inputs_too(edit: Edit, input: dict[str, Any]) -> None:
    folder = edit(lambda document: document["input"].update(input))
    read = load_bundle(folder).manifest.input
    assert read.to_json() == {"audio": None, "text": None, **input}


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_bundle_says_what_runs_it(edit: Edit, runtime: str) -> None:
    folder = edit(lambda document: document.update(runtime=runtime, precision="int8"))
    manifest = load_bundle(folder).manifest
    assert (manifest.runtime, manifest.precision) == (runtime, "int8")
    assert json.loads(manifest.to_json()) == json.loads((folder / MANIFEST).read_text())


def test_a_bundle_says_whether_its_calibration_data_were_held_out(
    tiny_bundle: Path, edit: Edit
) -> None:
    assert load_bundle(tiny_bundle).manifest.held_out == "known"
    folder = edit(lambda document: document.update(held_out="unknown"))
    manifest = load_bundle(folder).manifest
    assert manifest.held_out == "unknown"
    assert json.loads(manifest.to_json()) == json.loads((folder / MANIFEST).read_text())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda d: d.update(schema=1), "schema 1 is of an older delen; build the bundle again"),
        (lambda d: d.update(runtime="tvm"), "runtime 'tvm' is none of onnx, torch"),
        (lambda d: d.update(precision="int4"), "precision 'int4' is none of fp32, fp16, int8"),
        (lambda d: d.update(criterion="luck"), "criterion 'luck' is none of max_probability"),
        (lambda d: d.pop("runtime"), "lacks 'runtime'"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (lambda d: d["input"].update(colour="red"), "unknown field 'colour' in input"),
        (lambda d: d["input"]["image"].update(crop=1), "unknown field 'crop'"),
        (lambda d: d["exits"][1].update(depth=1), "unknown field 'depth' in exits[1]"),
        (lambda d: d["files"]["segment0.onnx"].update(md5="x"), "unknown field 'md5'"),
        (lambda d: d.update(held_out="maybe"), "held_out must be one of declared, known"),
        (lambda d: d.pop("version"), "lacks 'version'"),
        (lambda d: d.update(name="a/b"), "name 'a/b'"),
        (lambda d: d.update(name=".."), "name '..'"),
        (lambda d: d.update(exits=[]), "exits must be a list, at least 1 long"),
        (lambda d: d.update(classes=1), "classes must be a whole number, at least 2"),
        (lambda d: d.update(classes=True), "classes must be a whole number"),
        (lambda d: d.update(max_batch=0), "max_batch must be a whole number, at least 1"),
        (lambda d: d["labels"].pop(), "labels must be 4 strings"),
        (lambda d: d["labels"].append("more"), "labels must be 4 strings"),
        (lambda d: d["labels"].__setitem__(0, 7), "labels[0] must be a string"),
        (lambda d: d["input"].update(dtype="complex64"), "input.dtype 'complex64'"),
        (lambda d: d["input"].update(shape=[4, 0, 1]), "input.shape"),
        (lambda d: d["input"].update(shape=[]), "input.shape"),
        (lambda d: d["input"].update(shape=[4, 4, 3]), "input.image L needs"),
        (lambda d: d["input"]["image"].update(mode="CMYK"), "mode of RGB or L"),
        (lambda d: d["input"]["image"].update(resize="lanczos"), "resize of bilinear"),
        (lambda d: d["input"].update(audio={"sample_rate": 8000}), "input.audio needs"),
        (lambda d: d["input"].update(audio={"rate": 8000}), "sample_rate"),
        (lambda d: d["input"].update(text={"encoding": "utf-8"}), "input.text needs"),
        (lambda d: d["input"].update(SOUND, audio={"sample_rate": 0}), "input.audio.sample_rate"),
        (lambda d: d["input"].update(SOUND, dtype="int32"), "input.audio needs"),
        (lambda d: d["input"].update(WORDS, text={"encoding": "latin-1"}), "input.text needs"),
        (lambda d: d["input"].update(WORDS, dtype="int8"), "input.text needs"),
        (lambda d: d["input"].update(WORDS, shape=[4, 4]), "input.text needs"),
        (lambda d: d["exits"][1].update(macs=1000), "exits[1] needs"),
        (lambda d: d["exits"][2].update(macs=5), "exits[2] needs"),
        (lambda d: d["exits"][0].update(temperature=0), "exits[0].temperature must be a number"),
        (lambda d: d["exits"][0].update(temperature=float("nan")), "exits[0].temperature"),
        (lambda d: d["exits"][0].update(features=None), "exits[0].features must be null"),
        (lambda d: d["exits"][2].update(features=[16]), "exits[2].features must be null"),
        (lambda d: d["exits"][0].update(features=[1.5]), "features"),
        (lambda d: d["exits"][0].update(graph="other.onnx"), "'other.onnx' is used but not listed"),
        (lambda d: d.update(calibration="other.npz"), "'other.npz' is used but not listed"),
        (lambda d: d["files"].pop("segment1.onnx"), "'segment1.onnx' is used but not listed"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_refused_with_the_file_and_the_reason(
    edit: Edit, how: Callable[[dict[str, Any]], None], reason: str
) -> None:
    folder = edit(how)
    message = refusal(folder)
    assert str(folder / MANIFEST) in message
    assert reason in message


@pytest.mark.parametrize(
    "name", ["../segment0.onnx", "/etc/passwd", "a/b", "..", ".hidden", "a\0b", ""]
)
def test_a_file_outside_the_folder_is_refused_before_it_is_read(edit: Edit, name: str) -> None:
    def point_outside(document: dict[str, Any]) -> None:
        document["files"][name] = document["files"].pop("segment0.onnx")
        document["exits"][0]["graph"] = name

    message = refusal(edit(point_outside))
    assert repr(name) in message
    assert "not a plain file name" in message


FILES = ("segment0.onnx", "segment1.onnx", "segment2.onnx", "calibration.npz")


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    assert f"{copy / file} cannot be read" in refusal(copy)


@pytest.mark.parametrize("file", (*FILES, MANIFEST))
def test_a_pipe_is_named_and_not_waited_for(copy: Path, file: str) -> None:
    (copy / file).unlink()
    os.mkfifo(copy / file)
    message = refusal(copy)
    assert f"{copy / file} cannot be read" in message
    assert "not a plain file" in message


@pytest.mark.parametrize("file", (*FILES, MANIFEST))
def test_a_device_is_named_and_not_read(copy: Path, file: str) -> None:
    (copy / file).unlink()
    (copy / file).symlink_to("/dev/zero")
    assert "not a plain file" in refusal(copy)


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_named(copy: Path, file: str) -> None:
    contents = (copy / file).read_bytes()
    (copy / file).write_bytes(contents[:-1])
    assert (
        f"{copy / file} has {len(contents) - 1} bytes; the manifest says {len(contents)}"
        in refusal(copy)
    )


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0.0, 0.37, 1.0])
def test_one_flipped_bit_is_found(copy: Path, file: str, place: float) -> None:
    contents = bytearray((copy / file).read_bytes())
    contents[int(place * (len(contents) - 1))] ^= 1
    (copy / file).write_bytes(contents)
    assert f"{copy / file} is damaged" in refusal(copy)


def test_any_byte_of_the_manifest_changes_the_digest(copy: Path, tiny_bundle: Path) -> None:
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace("that tests made", "that tests wrote"))
    assert load_bundle(copy).digest != load_bundle(tiny_bundle).digest


def test_a_graph_that_changes_after_loading_is_not_run(copy: Path) -> None:
    bundle = load_bundle(copy)
    (copy / "segment1.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"segment1\.onnx"):
        bundle.graph(1)


def saved(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_broken_stream(table: bytes) -> bytes:
    """The archive with bytes inside its first compressed member overwritten."""
    return table[:200] + b"\xff" * 40 + table[240:]


GOOD = {
    "confidence": np.full((5, 3), 0.5, np.float32),
    "correct": np.ones((5, 3), bool),
    "predictions": np.ones((5, 3), np.int32),
}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"not an archive",
        b"PK\x03\x04",
        pickle.dumps({"confidence": 1}),
        npy(GOOD["confidence"]),
        saved(confidence=GOOD["confidence"]),
        saved(confidence=GOOD["confidence"], correct=GOOD["correct"]),
        saved(**{**GOOD, "correct": np.array([[object()] * 3] * 5)}),
        saved(**{**GOOD, "confidence": GOOD["confidence"].astype(np.float64)}),
        saved(**{**GOOD, "correct": GOOD["correct"].astype(np.uint8)}),
        saved(**{**GOOD, "confidence": GOOD["confidence"] + 1}),
        saved(**{**GOOD, "confidence": GOOD["confidence"] * np.float32("nan")}),
        saved(**{**GOOD, "correct": GOOD["correct"][:4]}),
        saved(**{**GOOD, "predictions": GOOD["predictions"].astype(np.float32)}),
        saved(**{**GOOD, "predictions": GOOD["predictions"][:4]}),
        saved(**{**GOOD, "predictions": GOOD["predictions"] * np.int32([1, 2, 3])}),
        saved(**{name: array[:0] for name, array in GOOD.items()}),
    ],
    ids=lambda contents: f"{len(contents)} bytes",
)
def test_what_is_no_calibration_table_is_named(copy: Path, contents: bytes) -> None:
    put(copy, "calibration.npz", contents)
    assert f"{copy / 'calibration.npz'} is not a calibration table" in refusal(copy)


def test_a_calibration_table_that_does_not_decompress_is_named(copy: Path) -> None:
    contents = (copy / "calibration.npz").read_bytes()
    put(copy, "calibration.npz", with_broken_stream(contents))
    assert f"{copy / 'calibration.npz'} is not a calibration table" in refusal(copy)


def test_a_calibration_of_another_network_is_refused(copy: Path) -> None:
    put(copy, "calibration.npz", saved(**{name: array[:, :2] for name, array in GOOD.items()}))
    message = refusal(copy)
    assert f"{copy / 'calibration.npz'} is of 2 exits; the manifest has 3" in message


def sized(document: dict[str, Any]) -> None:
    """Give the tiny bundle a smaller size, which has the graphs and the table of the largest."""
    document["input"]["sizes"] = [[2, 2]]
    document["smaller"] = [{"exits": document["exits"], "calibration": document["calibration"]}]


def test_a_bundle_of_two_sizes_is_two_bundles_of_one(edit: Edit) -> None:
    bundle = load_bundle(edit(sized))
    assert bundle.manifest.all_sizes == ((2, 2), (4, 4))
    assert [each.variant for each in bundle.sizes] == ["tiny@4x4", "tiny@2x2"]
    assert [each.manifest.input.shape for each in bundle.sizes] == [(4, 4, 1), (2, 2, 1)]
    assert bundle.smaller[0].digest == bundle.digest
    written = json.loads((bundle.path / MANIFEST).read_text())
    assert json.loads(bundle.manifest.to_json()) == written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["input"].update(sizes=[[2, 4]]), "smaller"),
        (lambda d: d["input"].update(sizes=[[2, 2], [3, 3]]), "smaller"),
        (lambda d: d["input"].update(image=None), "input.image"),
        (lambda d: d["input"].update(sizes=[]), "smaller has 1 sizes"),
        (lambda d: d["smaller"][0].update(exits=d["exits"][1:]), "smaller[0].exits must be 3"),
        (lambda d: d["smaller"][0].update(calibration="none.npz"), "none.npz"),
        (lambda d: d["smaller"][0].update(extra=1), "extra"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    edit: Edit, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    def both(document: dict[str, Any]) -> None:
        sized(document)
        document["smaller"][0] = dict(document["smaller"][0])
        change(document)

    assert says in refusal(edit(both))
