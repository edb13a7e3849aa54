"""Two places at once: an engine or a daemon here, a daemon behind a link that fails or is late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import delen

if TYPE_CHECKING:
    from benchmarks.throttle import ThrottledLink
    from tests.builders.daemon import Daemon

Image8 = NDArray[np.uint8]


def test_an_engine_here_and_a_daemon_there(
    daemon: Daemon, images: Image8, state: Path, until: Callable[..., Any]
) -> None:
    large = np.asarray(Image.fromarray(images[0]).resize((80, 60)))
    with (
        delen.Engine(state=state, power="none") as engine,
        delen.Client(daemon.url) as remote,
    ):
        fused = delen.Fused(engine, remote, period=2)
        first = fused.infer(large, max_latency=0.5)
        assert first.sent
        assert first.label == first.result.label
        assert first.result.receipt.latency.bound == 0.5
        until(lambda: fused.absorbed == 1, "the remote answer is there")
        second = fused.infer(Image.fromarray(large))
        assert (second.frame, second.remote) == (1, 0)
        assert second.age > 0
        assert second.label == remote.infer(Image.fromarray(large)).label
        fused.wait()


def test_a_remote_that_is_not_there_costs_nothing(
    daemon: Daemon, closed_url: str, images: Image8
) -> None:
    with delen.Client(daemon.unix_url) as local, delen.Client(closed_url) as remote:
        fused = delen.Fused(local, remote, period=1)
        for image in images[:4]:
            answer = fused.infer(image)
            assert answer.label == local.infer(image).label
            assert answer.remote is None
        fused.wait()
        assert fused.lost["unanswered"] == fused.sent > 0
        assert isinstance(fused.last_error, delen.DaemonUnreachable)


def test_asyncio_has_the_same(daemon: Daemon, images: Image8) -> None:
    async def play() -> tuple[delen.FusedResult, delen.FusedResult, int]:
        async with (
            delen.AsyncClient(daemon.unix_url) as local,
            delen.AsyncClient(daemon.url) as remote,
        ):
            fused = delen.AsyncFused(local, remote, period=1)
            first = await fused.infer(Image.fromarray(images[0]), max_latency=30.0)
            await fused.wait()
            return first, fused.result(0), fused.absorbed

    first, corrected, absorbed = asyncio.run(play())
    assert (absorbed, first.sent, first.frame) == (1, True, 0)
    assert (corrected.remote, corrected.frame) == (0, 0)
    assert first.result.receipt.latency.bound == 30.0


def test_a_remote_behind_a_link_that_stood_still_corrects_history(
    daemon: Daemon, link: ThrottledLink, images: Image8
) -> None:
    with delen.Client(daemon.unix_url) as local, delen.Client(link.url) as remote:
        link.set_rate(0)
        fused = delen.Fused(local, remote, period=2)
        answers = [fused.infer(images[0]) for _ in range(5)]
        assert [answer.remote for answer in answers] == [None] * 5
        assert [answer.sent for answer in answers] == [True, False, True, False, False]
        assert fused.lost["busy"] == 1
        link.set_rate(1e10)
        fused.wait()
        assert [fused.result(frame).remote for frame in range(5)] == [0, 0, 2, 2, 2]
