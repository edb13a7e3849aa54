from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.errors import InvalidInput
from delen.replay.inputs import UNKNOWN, Inputs, draw, random_inputs, read_inputs
from delen.replay.served import Served
from delen.sdk.inputs import EncodedInput
from delen.simulate.trace import Arrival, Trace

SAMPLES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def sent(inputs: Inputs) -> list[NDArray[np.uint8]]:
    return [np.load(BytesIO(body.body)) for body in inputs.bodies]


def test_random_inputs_have_the_models_shape_and_no_label(model: Served) -> None:
    made = random_inputs(model, seed=1)
    assert {array.shape for array in sent(made)} == {(2, 2)}
    assert made.kind == "random" and (made.labels == UNKNOWN).all()
    assert made.bodies == random_inputs(model, seed=1).bodies
    assert made.bodies != random_inputs(model, seed=2).bodies
    words = Served("w", "int64", (5,), 2, None, exits=2)
    assert max(array.max() for array in sent(random_inputs(words, 0))) < 128


def test_an_array_is_one_sample_or_many(tmp_path: Path, model: Served) -> None:
    file = tmp_path / "x.npy"
    np.save(file, SAMPLES)
    made = read_inputs(file, model)
    assert np.array_equal(sent(made), SAMPLES)
    assert made.labels.tolist() == [UNKNOWN] * 3
    np.save(file, SAMPLES[1])
    assert np.array_equal(sent(read_inputs(file, model)), SAMPLES[1:2])


def test_an_npz_file_has_labels_as_indices_or_names(tmp_path: Path, model: Served) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, inputs=SAMPLES, labels=np.array([2, 0, 1]))
    assert read_inputs(file, model).labels.tolist() == [2, 0, 1]
    np.savez(file, inputs=SAMPLES, labels=np.array(["7", "dog", "0"]))
    assert read_inputs(file, model).labels.tolist() == [2, 1, 0], "a name comes before an index"
    np.savez(file, inputs=SAMPLES)
    assert read_inputs(file, model).labels.tolist() == [UNKNOWN] * 3


def test_folders_of_classes_and_a_csv_file_give_labels(tmp_path: Path, model: Served) -> None:
    for name, sample in zip(("cat", "dog", "dog"), SAMPLES, strict=True):
        (tmp_path / name).mkdir(exist_ok=True)
        np.save(tmp_path / name / f"{sample[0, 0]}.npy", sample)
    np.save(tmp_path / "loose.npy", SAMPLES[0])
    (tmp_path / "notes.md").write_text("not an input")
    made = read_inputs(tmp_path, model)
    assert made.labels.tolist() == [0, 1, 1, UNKNOWN]
    (tmp_path / "labels.csv").write_text("label,file\ndog,loose.npy\n,cat/0.npy\n0,dog/4.npy\n")
    listed = read_inputs(tmp_path, model)
    assert listed.labels.tolist() == [1, UNKNOWN, 0]
    assert np.array_equal(sent(listed), SAMPLES[[0, 0, 1]])
    assert read_inputs(tmp_path / "labels.csv", model).labels.tolist() == [1, UNKNOWN, 0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"inputs": SAMPLES, "labels": np.array([0, 1, 3])},
            "3 is not a class of m; they are 0 to 2",
        ),
        ({"inputs": SAMPLES, "labels": np.array(["cow"] * 3)}, "'cow' is not a class"),
        ({"inputs": SAMPLES, "labels": np.array([0])}, "there are 3 inputs"),
        ({"inputs": SAMPLES, "labels": np.array([0, 0.5, 1])}, "0.5 is not a class"),
        ({"inputs": SAMPLES.astype(np.float32)}, "float32 [3, 2, 2]; m accepts uint8 [2, 2]"),
        ({"inputs": SAMPLES[:0]}, "uint8 [0, 2, 2]"),
        ({"images": SAMPLES}, "no array named inputs"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, model: Served, arrays: dict[str, NDArray[np.generic]], said: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        read_inputs(tmp_path / "x.npz", model)
    assert said in str(caught.value)
    assert "x.npz" in str(caught.value)


def test_what_is_not_there_or_empty_is_named(tmp_path: Path, model: Served) -> None:
    with pytest.raises(InvalidInput, match="holds no inputs"):
        read_inputs(tmp_path, model)
    for name in ("a.npy", "a.npz", "a.csv", "a.png"):
        with pytest.raises(InvalidInput, match=f"{name}.* cannot be read"):
            read_inputs(tmp_path / name, model)
    np.save(tmp_path / "batch.npy", SAMPLES)
    with pytest.raises(InvalidInput, match="holds a batch"):
        read_inputs(tmp_path, model)


def test_all_inputs_are_sent_before_one_is_sent_again() -> None:
    def some(*labels: int) -> Inputs:
        bodies = tuple(EncodedInput("application/x-npy", (b"x",)) for _ in labels)
        return Inputs("files", bodies, np.array(labels, np.int64))

    names = ["m", None, "n"] * 5
    trace = Trace(tuple(Arrival(float(n), model=name) for n, name in enumerate(names)))
    drawn = draw(trace, {"m": some(7, 8, 9), "n": some(UNKNOWN)}, "m", seed=3)
    rows = [row for row, name in enumerate(names) if name != "n"]
    for start in (0, 3, 6):
        assert set(drawn.index[rows[start : start + 3]].tolist()) == {0, 1, 2}
    assert (drawn.label[rows] == drawn.index[rows] + 7).all()
    assert (drawn.label[2::3] == UNKNOWN).all()
