"""What the infer address reads of a request, and what it refuses without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from api.exchange import HttpRequest
from api.infer import InferAddress
from api.readers import Readers
from delen.bundle.manifest import read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.errors import Overloaded

SPEC = read_manifest(SHIPPED_BUNDLES / "cifar10-resnet")[0].input


class Busy:
    """A runtime with no room for a while."""

    def input_of(self, model: str) -> Any:
        return SPEC

    def is_free(self, seconds: float) -> bool:
        return False

    def submit_batch(self, *how: Any) -> Any:
        raise Overloaded("too much waits", retry_after=30.0)


@pytest.mark.asyncio
async def test_a_large_body_that_comes_again_too_soon_is_refused_unread() -> None:
    """Clients that posted batches of 600 KB over and over took a core for what was refused."""
    read: list[int] = []

    def request(samples: int, query: str = "") -> HttpRequest:
        size = 3072 * samples

        async def take(limit: int) -> bytes:
            read.append(samples)
            return bytes(size)

        body: Any = SimpleNamespace(length=size, is_packed=False, read=take, shared=None)
        headers = {b"content-type": b"application/octet-stream"}
        return HttpRequest("POST", "/v1/infer", query, headers, body, connection)

    connection: Any = SimpleNamespace(arrived=0.0, receiving=0.0, is_gone=False, refused=("", 0.0))
    readers = Readers(1, lambda payer, seconds: None, lambda payer: True)
    with ThreadPoolExecutor(1) as threads:
        runtime: Any = Busy()
        address = InferAddress(runtime, 10**6, readers, threads, lambda model, seconds: None)

        async def ask(samples: int, query: str = "") -> float:
            with pytest.raises(Overloaded) as refused:
                await address.answer(request(samples, query), "m")
            return refused.value.retry_after

        assert await ask(200) == 30.0
        assert 29.0 < await ask(200) < 30.0
        assert read == [200]
        await ask(1)
        await ask(100, "tenant=other")
        assert read == [200, 1, 100], "a small one, and another request, are read"
