"""``delen simulate --link``: streams of frames over links, and what client controllers make of
them."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import LATENCIES, TIMES, check_once, fraction, positive, quantity, whole
from delen.errors import ConfigError, DelenError

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle
    from delen.core.dispatch import DispatchPolicy
    from delen.simulate.model import SimulatedModel
    from delen.simulate.run import RunSettings
    from delen.simulate.streams.link import LinkSettings
    from delen.simulate.streams.play import Played
    from delen.simulate.streams.stream import StreamSettings
    from policies.client.api import FrameOption

_ONLY_TRACES = ("weight", "priority", "network", "actual")
_ONLY_LINKS = ("controller", "sizes", "fps", "deadline", "streams", "duration", "in_flight")
_READERS: dict[str, Callable[[str], float]] = {
    "delay": quantity(LATENCIES, zero=True),
    "jitter": quantity(LATENCIES, zero=True),
    "burst": quantity(LATENCIES),
    "loss": fraction,
    "variation": fraction,
    "fades": fraction,
}
_DEFAULT_FPS = 30.0
_DEFAULT_DEADLINE = 0.1
_DEFAULT_DURATION = 60.0


@dataclass(frozen=True, slots=True)
class LinkOption:
    """What ``--link`` says."""

    file: Path
    is_linear: bool
    others: dict[str, float]

    def read(self) -> LinkSettings:
        """TraceError names what is wrong with the file."""
        from delen.simulate.streams.bandwidth import HOLD, LINEAR, read_bandwidth
        from delen.simulate.streams.link import LinkSettings

        bandwidth = read_bandwidth(self.file, LINEAR if self.is_linear else HOLD)
        try:
            return LinkSettings(bandwidth, **self.others)
        except ValueError as error:
            raise ConfigError(f"--link: {error}") from error


def link(text: str) -> LinkOption:
    """A reader of ``--link``."""
    file, *parts = text.split(",")
    is_linear, others = False, {}
    for part in parts:
        key, sign, value = part.partition("=")
        if part in ("linear", "hold"):
            is_linear = part == "linear"
        elif key in _READERS and sign:
            if key in others:
                raise argparse.ArgumentTypeError(f"{key} is given twice")
            try:
                others[key] = _READERS[key](value)
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentTypeError(f"{key}: {error}") from None
        else:
            known = ", ".join(f"{name}=" for name in _READERS)
            raise argparse.ArgumentTypeError(
                f"{part!r} is not known; behind the file may stand hold, linear, {known}"
            )
    if not file:
        raise argparse.ArgumentTypeError(f"{text!r} names no file")
    return LinkOption(Path(file), is_linear, others)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "streams of frames",
        "With --link in place of --trace, cameras send frames over links, and client controllers "
        "choose the size of each.",
    )
    group.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="the sizes of frames, in place of a bundle: CSV with height,width,payload_bytes,"
        "encoding_ms,latency_ms,accuracy",
    )
    group.add_argument(
        "--controller",
        type=lambda text: text.split(","),
        action="extend",
        metavar="NAME,NAME",
        help="client controllers (default: all there are)",
    )
    group.add_argument("--fps", type=positive, help=f"frames a second (default: {_DEFAULT_FPS:g})")
    group.add_argument(
        "--deadline",
        type=quantity(LATENCIES),
        metavar="33ms",
        help=f"from a frame's capture to its answer (default: {1e3 * _DEFAULT_DEADLINE:g}ms)",
    )
    group.add_argument(
        "--duration",
        type=quantity(TIMES),
        metavar="1min",
        help=f"of each stream (default: {_DEFAULT_DURATION:g}s); a shorter bandwidth begins anew",
    )
    group.add_argument(
        "--streams", type=whole(1), metavar="N", help="cameras, each on a link of its own"
    )
    group.add_argument(
        "--in-flight",
        type=whole(1),
        metavar="N",
        help="frames of a stream on their way at once (default: those of a deadline and another)",
    )


def check(options: argparse.Namespace) -> None:
    """ConfigError for options that go with traces where there is a link, or the other way."""
    wrong = _ONLY_TRACES if options.link is not None else _ONLY_LINKS
    for name in wrong:
        if getattr(options, name):
            other = "--trace" if options.link is not None else "--link"
            raise ConfigError(f"--{name.replace('_', '-')} goes with {other}")
    if options.link is not None and options.policy and len(options.policy) > 1:
        raise ConfigError("--policy: give one with --link, which compares controllers")
    if options.sizes is not None and (options.model or options.bundle or options.profile):
        raise ConfigError("--sizes stands for the model: leave out --model, --bundle and --profile")


def options_of(bundle: Bundle, models: Sequence[SimulatedModel]) -> tuple[FrameOption, ...]:
    """What a client can send to ``models``, those of the sizes of ``bundle``: raw tensors."""
    from math import prod

    import numpy as np

    from policies.client.api import FrameOption

    options = []
    for sized, model in zip(reversed(bundle.sizes), models, strict=True):
        costs, exit = model.costs(), len(sized.exits) - 1
        shape = sized.manifest.input.shape
        options.append(
            FrameOption(
                size=(shape[0], shape[1]) if len(shape) > 1 else None,
                payload=prod(shape) * np.dtype(sized.manifest.input.dtype).itemsize,
                latency=model.planner.arrival(exit, costs, 0.0, None),
                accuracy=model.planner.accuracies[exit],
                exit=exit,
            )
        )
    return tuple(options)


def run(
    options: argparse.Namespace,
    models: Sequence[SimulatedModel],
    frame_options: tuple[FrameOption, ...],
    settings: RunSettings,
) -> int:
    """Play ``models`` at their sizes with each controller, and print what became of the frames."""
    from delen.commands.table import streams_table
    from delen.daemon.settings import DEFAULT_DISPATCH
    from delen.simulate.streams.plots import save_plots
    from delen.simulate.streams.stream import StreamSettings
    from delen.simulate.streams.summary import summarise
    from policies.plugins import (
        CLIENT_CONTROLLERS,
        make_controller,
        make_dispatch,
        plugin_names,
    )

    settings_of_link = options.link.read()
    names = options.controller or plugin_names(CLIENT_CONTROLLERS)
    check_once(names, "--controller")
    for name in names:
        make_controller(name)
    fps = options.fps or _DEFAULT_FPS
    streams = [
        StreamSettings(
            name=f"camera-{number}",
            options=frame_options,
            fps=fps,
            deadline=options.deadline or _DEFAULT_DEADLINE,
            frames=max(1, round(fps * (options.duration or _DEFAULT_DURATION))),
            in_flight=options.in_flight,
            start=number / fps / (options.streams or 1),
        )
        for number in range(options.streams or 1)
    ]
    policy = (options.policy or [DEFAULT_DISPATCH])[0]
    gc.freeze()
    bound = None if options.no_upper_bound else _bound(streams, settings_of_link, options.seed)
    results, summaries = {}, []
    for name in names:
        played = _play(
            name,
            streams,
            settings_of_link,
            models,
            (make_dispatch(policy), make_dispatch(DEFAULT_DISPATCH)),
            settings,
        )
        for failure in played.failures:
            print(f"delen: {failure}; the default decided instead", file=sys.stderr)
        results[name] = played.frames
        summaries.append(summarise(name, policy, streams, played, bound))
        if options.json:
            print(json.dumps(summaries[-1]), flush=True)
    if not options.json:
        print(streams_table(summaries), end="")
    if options.plots is not None:
        try:
            files = save_plots(results, streams[0], settings_of_link, options.plots)
        except OSError as error:
            raise DelenError(f"the plots cannot be written: {error}") from error
        print(f"written: {', '.join(map(str, files))}", file=sys.stderr)
    return 0


def _play(
    name: str,
    streams: Sequence[StreamSettings],
    link: LinkSettings,
    models: Sequence[SimulatedModel],
    policies: tuple[DispatchPolicy, DispatchPolicy],
    settings: RunSettings,
) -> Played:
    from delen.simulate.streams.link import Link
    from delen.simulate.streams.play import play_streams
    from delen.simulate.streams.stream import Stream, draw_footage
    from policies.plugins import make_controller

    clients = [
        Stream(
            each,
            make_controller(name),
            Link(link, each.end, settings.seed + number),
            draw_footage(each, settings.seed + number),
        )
        for number, each in enumerate(streams)
    ]
    return play_streams(clients, models, policies[0], policies[1], settings)


def _bound(streams: Sequence[StreamSettings], link: LinkSettings, seed: int) -> float:
    """The mean of the bounds of all streams, each alone with a daemon that takes no time."""
    from delen.simulate.streams.clairvoyant import upper_bound
    from delen.simulate.streams.link import Link
    from delen.simulate.streams.stream import draw_footage

    bounds = [
        upper_bound(each, Link(link, each.end, seed + n), draw_footage(each, seed + n), 0.0)
        for n, each in enumerate(streams)
    ]
    return sum(bounds) / len(bounds)
