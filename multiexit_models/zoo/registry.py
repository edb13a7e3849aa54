"""The one list of the networks that delen knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from delen.errors import InvalidInput
from multiexit_models.zoo import audio, msdnet, residual, text, vision, wav2vec
from multiexit_models.zoo.entry import ZooEntry

ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        entry.name: entry
        for family in (residual, msdnet, vision, audio, wav2vec, text)
        for entry in family.ENTRIES
    }
)


def zoo_entry(name: str) -> ZooEntry:
    """The network called ``name``. Raises InvalidInput with the known names for any other."""
    entry = ZOO.get(name)
    if entry is None:
        raise InvalidInput(f"the zoo has no network {name!r}; it has {', '.join(ZOO)}", "network")
    return entry
