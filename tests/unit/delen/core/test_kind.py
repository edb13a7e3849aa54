from __future__ import annotations

from collections import OrderedDict

from delen.core.kind import kind_of


def test_a_kind_has_its_article() -> None:
    assert kind_of(5) == "an int"
    assert kind_of([]) == "a list"
    assert kind_of(OrderedDict()) == "an OrderedDict"
