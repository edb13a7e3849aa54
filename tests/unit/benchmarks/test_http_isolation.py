"""What the attacks of benchmarks.http_isolation are: each is let in as far as is meant."""

from __future__ import annotations

import pytest

from api.parse import read_infer
from api.server.body import unpack
from benchmarks.http_isolation import attacks
from delen.bundle.manifest import read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.errors import InvalidInput

SPEC = read_manifest(SHIPPED_BUNDLES / "cifar10-resnet")[0].input
READ = {"progressive JPEG", "raw requests", "batches of 200"}
REFUSED = {"junk JSON of 1 MB", "JSON of strings", "a header of .npy", "packed zeros"}


def test_every_attack_is_known() -> None:
    assert {*READ, *REFUSED, "PNG of 16 million pixels"} == set(attacks())


@pytest.mark.parametrize("name", sorted(READ | REFUSED))
def test_attacks_are_read_or_refused(name: str) -> None:
    media_type, body, headers = attacks()[name]
    if headers:
        body = unpack(body, 32_000_000)
    if name in READ:
        assert read_infer(media_type, "", body, SPEC).samples
    else:
        with pytest.raises(InvalidInput):
            read_infer(media_type, "", body, SPEC)
