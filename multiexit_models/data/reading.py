"""How data are read: the options that all readers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OnFile = Callable[[int, int], None]
"""Called after each file with how many are done, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read a data set.

    ``shape`` is that of an input: ``(height, width, channels)`` of images, ``(samples,)`` of audio,
    ``(bytes,)`` of texts. ``seed`` decides which samples go to parts that the data do not have.
    ``sample_rate`` (Hz) is for audio, the columns are for CSV files. ``group_by`` is a regular
    expression: files for which it finds the same text (a track, a speaker) stay in one part. At
    most the share ``max_unreadable`` of the files may be unreadable; they are skipped. ``cache`` is
    a folder for the decoded files of this data set alone, for more than memory holds.
    """

    shape: tuple[int, ...]
    seed: int = 0
    sample_rate: int | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    group_by: str | None = None
    max_unreadable: float = 0.01
    cache: Path | None = None
    on_file: OnFile | None = None
