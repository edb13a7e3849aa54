from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.texts import text_to_bytes


@given(text=st.text(st.characters(codec="utf-8"), max_size=40), length=st.integers(1, 60))
def test_a_text_is_cut_between_characters_and_padded(text: str, length: int) -> None:
    result = text_to_bytes(text, length)
    assert (result.dtype, result.shape) == (np.uint8, (length,))
    encoded = text.encode()
    if len(encoded) <= length:
        assert result.tobytes() == encoded.ljust(length, b"\0")
    else:
        kept = encoded[:length].decode("utf-8", "ignore").encode()
        assert result.tobytes() == kept.ljust(length, b"\0")


def test_characters_of_several_bytes_are_kept_whole() -> None:
    assert text_to_bytes("Dělen", 2).tobytes() == b"D\0"
    assert text_to_bytes("Dělen", 3).tobytes() == "Dě".encode()


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        text_to_bytes("\ud800", 8)
