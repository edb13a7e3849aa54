from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.errors import InvalidInput
from multiexit_models.data.audio import read_audio_folder, read_fsdd
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PARTS

WriteWav = Callable[..., Path]


def how(samples: int, sample_rate: int = 8000, **settings: Any) -> Reading:
    return Reading(shape=(samples,), sample_rate=sample_rate, **settings)


def tone(hertz: float, seconds: float = 0.1, rate: int = 8000) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (20_000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


@pytest.fixture
def words(tmp_path: Path, write_wav: WriteWav) -> Path:
    """Two words by ten speakers, twice each; the first sample says who speaks."""
    folder = tmp_path / "words"
    for number in range(40):
        frames = tone(200 + number, 0.05)
        frames[0] = number // 4
        name = f"s{number // 4}_nohash_{number}.wav"
        write_wav(folder / ("no", "yes")[number % 2] / name, frames)
    return folder


def test_recordings_are_read_and_padded(words: Path) -> None:
    data = read_audio_folder(
        words,
        how(
            500,
            8000,
        ),
    )
    assert (data.classes, data.name) == (("no", "yes"), "words")
    assert data.input.to_json()["audio"] == {"sample_rate": 8000}
    assert [len(getattr(data, part)) for part in PARTS] == [24, 4, 6, 6]
    assert data.training.inputs.dtype == np.int16
    assert not data.training.inputs[:, 400:].any()
    assert data.training.inputs[:, :400].any(axis=1).all()


def test_no_speaker_is_in_two_parts(words: Path) -> None:
    data = read_audio_folder(words, how(500, 8000, group_by=r"([^/_]+)_nohash"))
    speakers = [set(getattr(data, part).inputs[:, 0].tolist()) for part in PARTS]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 10


def test_given_parts_and_a_cache(words: Path, tmp_path: Path) -> None:
    (words / "train").mkdir()
    for name in ("no", "yes"):
        (words / name).rename(words / "train" / name)
    (words / "test" / "no").mkdir(parents=True)
    file = next((words / "train" / "no").iterdir())
    file.rename(words / "test" / "no" / file.name)
    cached = read_audio_folder(words, how(500, 8000, cache=tmp_path / "cache"))
    data = read_audio_folder(
        words,
        how(
            500,
            8000,
        ),
    )
    assert isinstance(cached.test.inputs.base, np.memmap)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(cached, part).inputs, getattr(data, part).inputs)
    assert len(data.test) == 1


def test_recordings_of_other_kinds_are_named_and_skipped(words: Path, write_wav: WriteWav) -> None:
    write_wav(words / "no" / "deep.wav", np.zeros(10, np.int32))
    write_wav(words / "no" / "many.wav", np.zeros((10, 6), np.int16))
    write_wav(words / "no" / "none.wav", np.zeros(0, np.int16))
    (words / "yes" / "mp3.wav").write_bytes(b"\xff\xfb\x90\x00" * 30)
    (words / "yes" / "song.mp3").write_bytes(b"\xff\xfb\x90\x00" * 30)
    data = read_audio_folder(words, how(500, 8000, max_unreadable=0.1))
    assert [line.split(":")[0] for line in data.skipped] == ["no/none.wav", "yes/mp3.wav", "yes"]
    assert "the recording has no samples" in data.skipped[0]
    assert "yes: 1 files that are not recordings (.mp3)" in data.skipped[2]
    with pytest.raises(InvalidInput, match=r"2 of 44 files .*no/none\.wav"):
        read_audio_folder(words, how(500, 8000))


def test_an_empty_class_is_refused(words: Path) -> None:
    (words / "maybe").mkdir()
    with pytest.raises(InvalidInput, match=r"maybe has no recordings \(\.flac, .*\.wav"):
        read_audio_folder(
            words,
            how(
                500,
                8000,
            ),
        )


@pytest.mark.parametrize(("samples", "rate"), [(0, 8000), (500, 0)])
def test_a_shape_of_no_recording_is_refused(words: Path, samples: int, rate: int) -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        read_audio_folder(
            words,
            how(
                samples,
                rate,
            ),
        )


@pytest.fixture
def digits(tmp_path: Path, write_wav: WriteWav) -> Path:
    """Five speakers say three digits ten times; the first sample says who speaks."""
    folder = tmp_path / "recordings"
    for speaker, name in enumerate(("ann", "bob", "cid", "dan", "eve")):
        for number in range(30):
            frames = tone(300 + number, 0.02)
            frames[:2] = speaker, number
            write_wav(folder / f"{number % 3}_{name}_{number // 3}.wav", frames)
    return folder


def test_speakers_are_held_out(digits: Path) -> None:
    (digits / "README.md").write_text("spoken digits")
    data = read_fsdd(digits, how(200))
    assert data.classes == ("0", "1", "2")
    assert [len(getattr(data, part)) for part in PARTS] == [90, 6, 24, 30]
    speakers = [set(getattr(data, part).inputs[:, 0].tolist()) for part in PARTS]
    assert speakers == [{0, 1, 2}, {3}, {3}, {4}]
    for part in PARTS:
        labelled = getattr(data, part)
        np.testing.assert_array_equal(labelled.inputs[:, 1] % 3, labelled.labels)
    assert np.bincount(data.calibration.labels).tolist() == [8, 8, 8]


def test_a_zip_is_as_its_folder(digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "digits.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("__MACOSX/._0_ann_0.wav", b"\0")
        archive.writestr("README.md", "spoken digits")
        for recording in digits.iterdir():
            archive.write(recording, f"fsdd/{recording.name}")
    zipped, plain = read_fsdd(file, how(200)), read_fsdd(digits, how(200))
    for part in PARTS:
        np.testing.assert_array_equal(getattr(zipped, part).inputs, getattr(plain, part).inputs)


def test_what_is_not_the_set_is_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InvalidInput, match="has no recordings"):
        read_fsdd(tmp_path / "nothing", how(200))
    with pytest.raises(InvalidInput, match=r"text\.zip cannot be read"):
        read_fsdd(tmp_path / "text.zip", how(200))
    with pytest.raises(InvalidInput, match=r"absent\.zip cannot be read \(No such file"):
        read_fsdd(tmp_path / "absent.zip", how(200))
    for name in ("ann", "bob", "cid"):
        for file in digits.glob(f"*_{name}_*.wav"):
            file.unlink()
    with pytest.raises(InvalidInput, match=r"three speakers or more.*dan, eve"):
        read_fsdd(digits, how(200))
    (digits / "seven.wav").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"seven\.wav has another form of name"):
        read_fsdd(digits, how(200))


def test_the_real_spoken_digits(data_folder: Path) -> None:
    file = data_folder / "audio" / "fsdd_wavs.zip"
    if not file.is_file():
        pytest.skip(f"the spoken digits are not at {file}")
    data = read_fsdd(file, how(8000))
    assert data.classes == tuple("0123456789")
    assert [len(getattr(data, part)) for part in PARTS] == [2000, 100, 400, 500]
    assert np.bincount(data.test.labels).tolist() == [50] * 10
    assert np.bincount(data.validation.labels).tolist() == [10] * 10
    assert data.skipped == ()
