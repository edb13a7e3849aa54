from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PARTS
from multiexit_models.data.text import read_texts

LINES = [f'"say, number {number}",{("no", "yes")[number % 2]}' for number in range(40)]


def write(file: Path, *lines: str, header: str = "text,label") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return file


def read(path: Path, length: int = 16, **settings: Any) -> Dataset:
    return read_texts(path, Reading(shape=(length,), **settings))


def texts(data: Dataset, part: str) -> list[str]:
    return [row.tobytes().rstrip(b"\0").decode() for row in getattr(data, part).inputs]


def test_one_file_becomes_four_parts(tmp_path: Path) -> None:
    data = read(write(tmp_path / "words.csv", *LINES), 32)
    assert (data.name, data.classes) == ("words", ("no", "yes"))
    assert data.input.to_json()["text"] == {"encoding": "utf-8"}
    assert [len(getattr(data, part)) for part in PARTS] == [24, 4, 6, 6]
    everything = [text for part in PARTS for text in texts(data, part)]
    assert sorted(everything) == sorted(f"say, number {number}" for number in range(40))
    for part in PARTS:
        numbers = [int(text.split()[-1]) for text in texts(data, part)]
        assert [number % 2 for number in numbers] == getattr(data, part).labels.tolist()


def test_long_texts_are_cut_between_characters(tmp_path: Path) -> None:
    lines = [f"ěěěěě{number},{'ab'[number % 2]}" for number in range(20)]
    data = read(write(tmp_path / "words.csv", *lines), 9)
    assert data.training.inputs.shape == (12, 9)
    assert set(texts(data, "training")) == {"ěěěě"}


def test_a_folder_of_parts(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", *LINES[:30])
    write(tmp_path / "val.csv", *LINES[30:34])
    write(tmp_path / "test.csv", *LINES[34:])
    (tmp_path / "categories.json").write_text("[]")
    data = read(tmp_path)
    assert [len(getattr(data, part)) for part in PARTS] == [26, 4, 4, 6]


def test_a_column_of_parts_and_other_columns(tmp_path: Path) -> None:
    parts = ["train"] * 20 + ["VAL"] * 5 + ["cal"] * 5 + ["test"] * 10
    lines = [f"{line},7,{part}" for line, part in zip(LINES, parts, strict=True)]
    file = write(tmp_path / "all.csv", *lines, header="words,class,number,split")
    data = read(file, text_column="words", label_column="class", split_column="split")
    assert [len(getattr(data, part)) for part in PARTS] == [20, 5, 5, 10]


def test_tabs_separate_the_columns_of_a_tsv(tmp_path: Path) -> None:
    lines = [f"say, number {number}\t{('no', 'yes')[number % 2]}" for number in range(40)]
    whole = write(tmp_path / "words.tsv", *lines, header="text\tlabel")
    assert len(read(whole).training) == 24
    whole.rename(tmp_path / "train.tsv")
    assert len(read(tmp_path).training) == 24


def test_texts_of_several_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    lines = [f'"first\nsecond ""{number}""",{"ab"[number % 2]}' for number in range(20)]
    file = write(tmp_path / "words.csv", *lines, header="\ufefftext,label")
    assert 'first\nsecond "' in "".join(texts(read(file, 32), "training"))


def test_empty_lines_are_passed_over(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "words.csv", "", *LINES, "")).training) == 24


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (",yes", r"words\.csv, line 42: the text is empty"),
        ("  ,yes", "line 42: the text is empty"),
        ("hello,", "line 42: the label is empty"),
        ("hello", "line 42: 1 fields where the columns are 2"),
        ("hello,yes,no", "line 42: 3 fields where the columns are 2"),
        ('"hello,yes', "line 42: unexpected end of data"),
        ('"' + "x" * 140_000 + '",yes', "line 42: field larger"),
    ],
)
def test_a_damaged_line_is_named(line: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=match):
        read(write(tmp_path / "words.csv", *LINES, line))


def test_the_first_line_of_a_damaged_text_of_several_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "words.csv", '"one\ntwo",a', '"three\nfour",', "five,b")
    with pytest.raises(InvalidInput, match="line 4: the label is empty"):
        read(file)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_named(mark: bytes, tmp_path: Path) -> None:
    file = tmp_path / "words.csv"
    file.write_bytes(mark + b"text,label\nfine,a\ncaf\xe9,b\n")
    with pytest.raises(InvalidInput, match=r"words\.csv, line 3: the byte 0xe9 is not UTF-8"):
        read(file)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("text,category", "line 1: no column named 'label'; the columns are text, category"),
        ("label,label", "no column named 'text'"),
        ("text,label,text", "two columns named 'text'"),
    ],
)
def test_a_missing_column_is_named(header: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=match):
        read(write(tmp_path / "words.csv", *LINES, header=header))


def test_a_label_that_training_has_not_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", *LINES)
    write(tmp_path / "test.csv", "fine,yes", "perhaps,maybe")
    with pytest.raises(
        InvalidInput, match=r"test\.csv, line 3: the label 'maybe' is not one of the 2"
    ):
        read(tmp_path)


def test_a_part_of_another_name_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "words.csv", "hello,yes,later", header="text,label,split")
    with pytest.raises(InvalidInput, match="line 2: 'later' does not name a part"):
        read(file, split_column="split")


def test_files_that_are_no_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not none"):
        read(tmp_path)
    write(tmp_path / "test.csv", *LINES)
    with pytest.raises(InvalidInput, match="no texts to train on"):
        read(tmp_path)
    write(tmp_path / "words.csv", *LINES)
    with pytest.raises(InvalidInput, match=r"not test\.csv, words\.csv"):
        read(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.csv cannot be read: No such file"):
        read(tmp_path / "absent.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InvalidInput, match=r"empty\.csv is empty"):
        read(tmp_path / "empty.csv")
    with pytest.raises(InvalidInput, match="no texts to train on"):
        read(write(tmp_path / "header.csv"))
    with pytest.raises(InvalidInput, match="above 0 bytes"):
        read(write(tmp_path / "fine.csv", *LINES), 0)


def pairs(count: int) -> list[list[str]]:
    return [[f"number {number}", ("no", "yes")[number % 2]] for number in range(count)]


def test_json_of_pairs(tmp_path: Path) -> None:
    file = tmp_path / "intents.json"
    document = {"train": pairs(40), "val": pairs(4), "oos_test": [["x", "oos"]], "test": pairs(6)}
    file.write_text(json.dumps(document))
    data = read(file, 16)
    assert data.classes == ("no", "yes")
    assert [len(getattr(data, part)) for part in PARTS] == [34, 4, 6, 6]


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "must be an object with some of train"),
        ('{"texts": []}', "must be an object with some of train"),
        ('{"train": {}}', "train must be a list of pairs"),
        ('{"train": [["a", "b"], ["c"]]}', "train, item 2 must be a pair"),
        ('{"train": [["a", 1]]}', "train, item 1 must be a pair"),
        ('{"train": [["", "a"]]}', "train, item 1: the text is empty"),
        ('{"train": [["a", "b"]], "test": [["a", "c"]]}', "test, item 1: the label 'c' is not one"),
    ],
)
def test_other_json_is_refused(contents: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "intents.json"
    file.write_text(contents)
    with pytest.raises(InvalidInput, match=match):
        read(file, 16)


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    file = tmp_path / "intents.json"
    file.write_text(json.dumps({"train": [*pairs(40), ["\ud800", "no"]]}))
    with pytest.raises(InvalidInput, match="train, item 41: the text is not Unicode"):
        read(file, 16)


def test_the_real_banking_questions(data_folder: Path) -> None:
    folder = data_folder / "text" / "banking77"
    if not folder.is_dir():
        pytest.skip(f"the banking questions are not at {folder}")
    data = read(folder, 96, label_column="category")
    assert len(data.classes) == 77
    assert len(data.test) == 3080
    assert sum(len(getattr(data, part)) for part in PARTS) == 13_083
    assert np.bincount(data.training.labels, minlength=77).min() > 0


def test_the_real_intents(data_folder: Path) -> None:
    file = data_folder / "text" / "clinc150" / "data_full.json"
    if not file.is_file():
        pytest.skip(f"the intents are not at {file}")
    data = read(file, 96)
    assert len(data.classes) == 150
    assert [len(getattr(data, part)) for part in PARTS] == [12_750, 3000, 2250, 4500]
    assert np.bincount(data.calibration.labels).tolist() == [15] * 150
