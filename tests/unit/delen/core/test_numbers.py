from __future__ import annotations

import pytest

from delen.core.numbers import read_number, read_whole


def test_numbers_are_read_as_they_are_written() -> None:
    assert read_number("-1.5e3") == -1500.0
    assert read_number(" 20 ") == 20.0
    assert read_whole("+7") == 7


@pytest.mark.parametrize("text", ["", "1_000", "\u0663", "\uff11", "1,5", "0x10", "\u20071"])
def test_what_python_alone_takes_for_a_number_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        read_number(text)
    with pytest.raises(ValueError):
        read_whole(text)
