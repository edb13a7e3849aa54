"""Streams of frames to a real daemon: over sockets, and over links that stall."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import delen
from policies.client.api import FrameChoice, FrameReport, StreamView

if TYPE_CHECKING:
    from benchmarks.throttle import ThrottledLink
    from tests.builders.daemon import Daemon

Image8 = NDArray[np.uint8]
FAST = 1000.0
"""Frames a second of a source that is not to be waited for."""
IN_TIME = 30.0
"""A deadline that every answer keeps."""


@dataclass
class Always:
    """A controller that sends every frame as large as can be, and remembers what it saw."""

    name: str = "always"
    views: list[StreamView] = field(default_factory=list)
    reports: list[FrameReport] = field(default_factory=list)

    def choose(self, view: StreamView) -> FrameChoice | None:
        self.views.append(view)
        return FrameChoice(len(view.options) - 1, view.remaining)

    def ended(self, report: FrameReport) -> None:
        self.reports.append(report)


@pytest.fixture
def client(daemon: Daemon) -> Iterator[delen.Client]:
    with delen.Client(daemon.unix_url) as client:
        yield client


def drops(stream: delen.Stream | delen.AsyncStream) -> dict[str, int]:
    return {cause: count for cause, count in stream.dropped.items() if count}


def gently(frames: Any, stream: Callable[[], delen.Stream]) -> Iterator[Any]:
    """``frames``, each once those before it have ended, so that none takes another's place."""
    for frame in frames:
        yield frame
        while stream().pending:
            time.sleep(0.001)


def test_results_come_in_order_of_capture_with_their_figures(
    client: delen.Client, images: Image8
) -> None:
    controller = Always()
    stream: delen.Stream
    with delen.Stream(
        client,
        gently(images, lambda: stream),
        fps=FAST,
        deadline=IN_TIME,
        controller=controller,
        name="front",
    ) as stream:
        results = list(stream)
    assert [result.frame for result in results] == list(range(40))
    alone = [client.infer(image, max_latency=IN_TIME) for image in images]
    assert [result.label for result in results] == [answer.label for answer in alone]
    assert drops(stream) == {}
    for result in results:
        assert (result.size, result.late, result.result.stream) == ((32, 32), False, "front")
        assert result.latency > result.result.receipt.latency.value > 0
        assert result.result.receipt.latency.bound is not None
    assert [report.frame for report in controller.reports] == list(range(40))
    assert all(report.payload == 3072 for report in controller.reports)
    option = controller.views[0].options[-1]
    plan = client.plan()
    assert option.accuracy == max(point.accuracy for point in plan.points)
    assert controller.views[-1].network is not None


def test_frames_of_every_kind_are_scaled(client: delen.Client, images: Image8) -> None:
    image = Image.fromarray(images[0])
    buffer = BytesIO()
    image.save(buffer, "PNG")
    large = np.asarray(image.resize((96, 64)))
    frames = [images[0], image, buffer.getvalue(), large, large[..., 0], large[:, ::-1]]
    stream: delen.Stream
    with delen.Stream(
        client,
        gently(frames, lambda: stream),
        fps=FAST,
        deadline=IN_TIME,
        controller=Always(),
    ) as stream:
        results = list(stream)
    assert [result.frame for result in results] == [0, 1, 2, 3, 4, 5]
    assert results[0].label == results[1].label == results[2].label
    assert results[0].result.probabilities == pytest.approx(
        results[2].result.probabilities, abs=1e-5
    )


def test_what_is_wrong_with_a_frame_ends_nothing(client: delen.Client, images: Image8) -> None:
    frames = [np.zeros((0, 0, 3), np.uint8), images[0], "nowhere.png", b"no image", images[:2], 7]
    stream: delen.Stream
    with delen.Stream(
        client,
        gently([*frames, images[1]], lambda: stream),
        fps=FAST,
        deadline=IN_TIME,
        controller=Always(),
    ) as stream:
        assert [result.frame for result in stream] == [1, 6]
    assert drops(stream) == {"invalid": 5}
    assert isinstance(stream.last_error, delen.InvalidInput)


def test_frames_that_come_faster_than_anything_are_replaced(
    client: delen.Client, images: Image8
) -> None:
    with delen.Stream(client, fps=FAST, deadline=IN_TIME, controller=Always()) as stream:
        for number in range(300):
            stream.put(images[number % 40])
        stream.end()
        results = list(stream)
    assert results[-1].frame == 299
    assert len(results) + drops(stream)["replaced"] == stream.frames == 300
    with pytest.raises(delen.DelenError, match="ended"):
        stream.put(images[0])


def test_a_source_that_stalls_holds_no_result_back(client: delen.Client, images: Image8) -> None:
    go_on = threading.Event()

    def stalls() -> Iterator[Image8]:
        yield images[0]
        go_on.wait()
        yield images[1]

    with delen.Stream(client, stalls(), deadline=IN_TIME, controller=Always()) as stream:
        assert next(stream).frame == 0
        go_on.set()
        assert [result.frame for result in stream] == [1]


def test_a_stream_that_is_left_reads_no_more_of_its_source(
    client: delen.Client, images: Image8
) -> None:
    taken = []

    def endless() -> Iterator[Image8]:
        while True:
            taken.append(len(taken))
            yield images[0]

    with delen.Stream(client, endless(), fps=200, deadline=IN_TIME, controller=Always()) as stream:
        results = [next(stream)]
    results += stream
    numbers = [result.frame for result in results]
    assert numbers == sorted(numbers)
    with pytest.raises(delen.DelenError, match="iterator"):
        stream.put(images[0])
    with pytest.raises(delen.DelenError, match="ended"), stream:
        pass
    assert stream.pending == 0
    assert len(taken) <= stream.frames + 1


def test_a_source_that_raises_raises_after_its_results(
    client: delen.Client, images: Image8
) -> None:
    def breaks() -> Iterator[Image8]:
        yield images[0]
        raise OSError("the camera was pulled out")

    with delen.Stream(client, breaks(), deadline=IN_TIME, controller=Always()) as stream:
        assert next(stream).frame == 0
        with pytest.raises(OSError, match="pulled out"):
            next(stream)


def test_a_controller_that_raises_ends_the_stream(client: delen.Client, images: Image8) -> None:
    class Breaks(Always):
        def choose(self, view: StreamView) -> FrameChoice | None:
            raise ZeroDivisionError

    with (
        delen.Stream(client, iter(images), controller=Breaks()) as stream,
        pytest.raises(ZeroDivisionError),
    ):
        next(stream)


def test_frames_that_repeat_are_counted(client: delen.Client, images: Image8) -> None:
    with delen.Stream(client, deadline=IN_TIME, controller=Always()) as stream:
        first = delen.Frame(images[0], 1e-3)
        late = delen.Frame(images[0], 5e-4)
        for frame in (first, first, late):
            stream.put(frame)
        stream.end()
        list(stream)
    assert drops(stream)["repeated"] == 2


def test_a_link_that_stands_still_costs_its_frames_and_no_others(
    link: ThrottledLink, images: Image8, until: Callable[..., Any]
) -> None:
    controller = Always()
    with (
        delen.Client(link.url) as client,
        delen.Stream(
            client, deadline=0.05, controller=controller, in_flight=2, patience=0.2
        ) as stream,
    ):

        def goes_on() -> list[delen.FrameResult]:
            stream.put(images[0])
            return stream.ready()

        until(goes_on, "frames are answered")
        link.set_rate(0)
        before = drops(stream).get("unanswered", 0)
        for number in range(4):
            stream.put(images[number])
        until(lambda: drops(stream).get("unanswered", 0) > before, "a frame is given up")
        link.set_rate(1e10)
        results = until(goes_on, "frames are answered again")
        stream.end()
        numbers = [result.frame for result in [*results, *stream]]
    assert numbers == sorted(numbers)
    assert isinstance(stream.last_error, delen.DaemonUnreachable)
    assert drops(stream)["replaced"] > 0
    assert any(report.answered is None for report in controller.reports)


def test_an_answer_that_comes_after_its_deadline_is_late(
    daemon: Daemon, link: ThrottledLink, images: Image8
) -> None:
    controller, bits = Always(), 100_000
    with (
        delen.Client(link.url) as client,
        delen.Stream(client, deadline=0.1, controller=controller) as stream,
    ):
        link.set_rate(bits)
        stream.put(images[0])
        stream.end()
        (result,) = stream
    assert result.late
    assert result.latency > 0.1
    sending = 8 * images[0].nbytes / bits
    [report] = controller.reports
    assert report.network is not None and report.latency is not None
    assert report.network > 0.9 * sending
    receipt = result.result.receipt
    assert receipt.receiving is not None
    assert receipt.receiving + report.latency == pytest.approx(receipt.latency.value)


def test_a_daemon_that_is_not_there_is_reported_at_once(closed_url: str, images: Image8) -> None:
    with (
        delen.Client(closed_url) as client,
        delen.Stream(client, iter(images), controller=Always()) as stream,
        pytest.raises(delen.DaemonUnreachable),
    ):
        next(stream)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("deadline", 0), ("fps", -1), ("in_flight", 0), ("patience", 0), ("encoding", "gif"),
        ("priority", 10), ("name", ""), ("min_accuracy", 2), ("max_energy", 0),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(client: delen.Client, option: str, value: Any) -> None:
    with pytest.raises(delen.InvalidInput) as caught:
        delen.Stream(client, controller=Always(), **{option: value})
    assert caught.value.field in (option, "stream")


@pytest.mark.parametrize("controller", [5, None, object()])
def test_a_wrong_controller_is_named(client: delen.Client, controller: Any) -> None:
    with pytest.raises(delen.InvalidInput) as caught:
        delen.Stream(client, controller=controller)
    assert caught.value.field == "controller"


def test_what_a_stream_is_made_of_is_checked(daemon: Daemon) -> None:
    with delen.Client(daemon.unix_url) as client:
        other: Any = delen.AsyncClient(daemon.unix_url)
        wrong: list[tuple[Any, Any, Any, str]] = [
            (delen.Stream, other, None, "client"),
            (delen.Stream, None, None, "client"),
            (delen.Stream, client, 5, "frames"),
            (delen.Stream, client, "photo.png", "frames"),
            (delen.Stream, client, b"encoded", "frames"),
            (delen.AsyncStream, client, None, "client"),
            (delen.AsyncStream, other, 5, "frames"),
            (delen.Fused, client, other, "remote"),
            (delen.AsyncFused, client, other, "local"),
            (delen.AsyncFused, other, client, "remote"),
            (delen.Fused, None, client, "local"),
        ]
        for kind, first, second, field in wrong:
            with pytest.raises(delen.InvalidInput) as caught:
                kind(first, second)
            assert caught.value.field == field


class Shown(list[Any]):
    """Frames that are false, as an empty list is."""

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [Shown, np.stack])
def test_any_iterator_is_a_source(client: delen.Client, images: Image8, kind: Any) -> None:
    frames = kind(list(images[:3]))
    with delen.Stream(client, frames, deadline=IN_TIME, controller=Always()) as stream:
        assert [result.frame for result in stream][-1] == 2


@pytest.mark.parametrize("bound", [{"min_accuracy": 0.999}, {"max_energy": 1e-12}])
def test_a_frame_that_cannot_keep_its_own_bounds_is_refused(
    client: delen.Client, images: Image8, bound: dict[str, float]
) -> None:
    with delen.Stream(client, images[:1], deadline=IN_TIME, controller=Always(), **bound) as stream:
        assert list(stream) == []
    assert drops(stream) == {"refused": 1}
    assert isinstance(stream.last_error, delen.InfeasibleBound)


def test_bounds_that_can_be_kept_are(client: delen.Client, images: Image8) -> None:
    with delen.Stream(
        client, images[:1], deadline=IN_TIME, controller=Always(), min_accuracy=0.3
    ) as stream:
        (result,) = stream
    assert result.result.receipt.accuracy.bound == 0.3
    assert result.result.receipt.met


def test_a_frame_is_not_sent_larger_than_it_is(
    client: delen.Client, images: Image8, png: Callable[[Image8], bytes]
) -> None:
    small = np.asarray(Image.fromarray(images[0]).resize((8, 8)))
    controller = Always()
    stream: delen.Stream
    with delen.Stream(
        client,
        gently([small, images[0], Image.fromarray(small), png(small)], lambda: stream),
        fps=FAST,
        deadline=IN_TIME,
        controller=controller,
    ) as stream:
        sizes = [result.size for result in stream]
    smallest = controller.views[0].options[0].size
    assert smallest is not None
    assert sizes == [smallest, (32, 32), smallest, smallest]
    assert controller.reports[0].index == 0
    assert controller.reports[0].payload == 3 * smallest[0] * smallest[1]


def test_a_client_that_is_closed_is_no_refusal(client: delen.Client, images: Image8) -> None:
    with delen.Stream(client, deadline=IN_TIME, controller=Always()) as stream:
        stream.put(images[0])
        next(stream)
        client.close()
        stream.put(images[0])
        stream.end()
        assert list(stream) == []
    assert drops(stream) == {"unanswered": 1}


def test_asyncio_has_the_same(daemon: Daemon, images: Image8) -> None:
    async def frames() -> Any:
        for image in images:
            yield image
            await asyncio.sleep(0.02)

    async def run(source: Any) -> tuple[list[int], delen.AsyncStream]:
        async with (
            delen.AsyncClient(daemon.unix_url) as client,
            delen.AsyncStream(
                client, source, fps=FAST, deadline=IN_TIME, controller=Always()
            ) as stream,
        ):
            return [result.frame async for result in stream], stream

    async def run_both() -> None:
        async with aclosing(frames()) as source:
            numbers, stream = await run(source)
        assert numbers[0] == 0
        assert numbers == sorted(numbers)
        assert len(numbers) + sum(stream.dropped.values()) == 40
        numbers, stream = await run(iter(images[:3]))
        assert numbers[-1] == 2
        assert stream.frames == 3

    asyncio.run(run_both())


def test_an_asynchronous_stream_is_pushed_to_and_fails_as_the_other(
    daemon: Daemon, images: Image8
) -> None:
    async def run() -> None:
        async with delen.AsyncClient(daemon.unix_url) as client:
            stream = delen.AsyncStream(client, deadline=IN_TIME, controller=Always())
            with pytest.raises(delen.DelenError, match="async with"):
                stream.put(images[0])
            async with stream:
                stream.put(images[0])
                assert (await anext(stream)).frame == 0
                stream.put(b"no image")
                stream.end()
                assert [result async for result in stream] == []
            assert drops(stream) == {"invalid": 1}

            def breaks() -> Iterator[Image8]:
                yield images[0]
                raise OSError("the camera was pulled out")

            async with delen.AsyncStream(
                client, breaks(), deadline=IN_TIME, controller=Always()
            ) as stream:
                assert (await anext(stream)).frame == 0
                with pytest.raises(OSError, match="pulled out"):
                    await anext(stream)
                with pytest.raises(delen.DelenError, match="iterator"):
                    stream.put(images[0])
            with pytest.raises(delen.DelenError, match="ended"):
                async with stream:
                    pass

    asyncio.run(run())


@pytest.mark.parametrize("name", ["fixed", "pid"])
def test_a_controller_is_found_by_name(client: delen.Client, images: Image8, name: str) -> None:
    with delen.Stream(client, iter(images[:1]), deadline=IN_TIME, controller=name) as stream:
        assert next(stream).frame == 0
    with pytest.raises(delen.DelenError, match="jellyfish"):
        delen.Stream(client, controller="nobody's")


def test_frames_are_sent_at_the_sizes_of_the_model(client: delen.Client, images: Image8) -> None:
    class Alternates(Always):
        def choose(self, view: StreamView) -> FrameChoice | None:
            self.views.append(view)
            return FrameChoice((0, -1 % len(view.options))[view.frame % 2])

    controller = Alternates()
    stream: delen.Stream
    with delen.Stream(
        client,
        gently(images[:4], lambda: stream),
        fps=FAST,
        deadline=IN_TIME,
        controller=controller,
    ) as stream:
        results = list(stream)
    options = controller.views[0].options
    sizes = [option.size for option in options]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (32, 32)
    assert [result.size for result in results] == [sizes[0], sizes[-1]] * 2
    assert results[0].result.size == sizes[0] != sizes[-1]
    assert [option.payload for option in options] == [3 * h * w for h, w in sizes]
    assert options[0].accuracy < options[-1].accuracy


def test_a_source_that_stalls_for_ever_keeps_no_event_loop_from_ending(
    daemon: Daemon, images: Image8
) -> None:
    goes_on = threading.Event()

    def stalls() -> Iterator[Image8]:
        yield images[0]
        goes_on.wait()
        yield images[1]

    async def run() -> int:
        async with (
            delen.AsyncClient(daemon.unix_url) as client,
            delen.AsyncStream(client, stalls(), deadline=IN_TIME, controller=Always()) as stream,
        ):
            return (await anext(stream)).frame

    assert asyncio.run(run()) == 0
    goes_on.set()
