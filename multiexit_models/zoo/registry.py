"""The one list of the networks that delen knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from delen.errors import InvalidInput
from multiexit_models.zoo import audio, msdnet, residual, text, vision, wav2vec
from multiexit_models.zoo.entry import ZooEntry
from multiexit_models.zoo.library import library_entry

ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        entry.name: entry
        for family in (residual, msdnet, vision, audio, wav2vec, text)
        for entry in family.ENTRIES
    }
)


def zoo_entry(name: str) -> ZooEntry:
    """The network called ``name`` in the zoo, torchvision or timm. Raises InvalidInput with the
    known names for any other."""
    entry = ZOO.get(name) or ZOO.get(name.replace("_", "-")) or library_entry(name)
    if entry is None:
        without = "" if find_spec("timm") else " (not installed: pip install 'delen[timm]')"
        raise InvalidInput(
            f"the zoo has no network {name!r}; it has {', '.join(ZOO)}, and every image classifier "
            f"of torchvision and of timm{without} by its name there",
            "network",
        )
    return entry
