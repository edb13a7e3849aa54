"""What is wrong with a job that another node has begun."""

from __future__ import annotations

import pytest

from api.resume import _read_parts
from delen.errors import InvalidInput


@pytest.mark.parametrize(
    "given",
    [
        b"nonsense",
        b"{}",
        b'[{"node":"x","exits":[0],"latency_ms":-5,"energy_mj":1}]',
        b'[{"node":"x y","exits":[0],"latency_ms":5,"energy_mj":1}]',
    ],
)
def test_wrong_parts_name_their_header(given: bytes) -> None:
    with pytest.raises(InvalidInput, match="X-Delen-Parts") as caught:
        _read_parts(given)
    assert caught.value.field == "X-Delen-Parts"
