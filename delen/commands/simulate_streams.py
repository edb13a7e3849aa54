"""``delen simulate --link``: streams of frames over links, and what client controllers make of
them."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import check_once
from delen.commands.simulated_device import device_of
from delen.commands.stream_options import DEFAULT_DEADLINE, DEFAULT_DURATION, DEFAULT_FPS
from delen.errors import ConfigError, DelenError

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle
    from delen.core.dispatch import DispatchPolicy
    from delen.daemon.config import Config
    from delen.simulate.model import SimulatedModel
    from delen.simulate.run import RunSettings
    from delen.simulate.streams.link import LinkSettings
    from delen.simulate.streams.play import Played
    from delen.simulate.streams.stream import StreamSettings
    from policies.client.api import FrameOption


def run(options: argparse.Namespace, config: Config) -> int:
    """Play the model at its sizes with each controller, and print what became of the frames."""
    from delen.daemon.build_runtime import policy_settings
    from delen.profile.reader import load_profile
    from delen.simulate.load import of_bundle, profile_of
    from delen.simulate.run import RunSettings
    from delen.simulate.streams.sizes import models_of, read_sizes
    from policies.plugins import EXIT_POLICIES, find_plugin

    settings = policy_settings(config)
    make_policy = find_plugin(EXIT_POLICIES, settings.exit)
    if options.sizes is not None:
        sizes = read_sizes(options.sizes)
        policy = make_policy(1, **dict(settings.options))
        models = models_of(sizes, settings.planner, policy, settings.quantile, options.seed)
    else:
        bundle = _bundle(options, config)
        profile = options.profile and load_profile(options.profile)
        model = of_bundle(
            bundle,
            profile or profile_of(bundle, Path(config["state.path"])),
            settings.planner,
            make_policy(len(bundle.exits), **dict(settings.options)),
            settings.quantile,
            config["power.watts_per_core"],
        )
        models = [replace(each, smaller=()) for each in reversed(model.sizes)]
        sizes = _options_of(bundle, models)
    run_settings = RunSettings(
        device=device_of(options, config, models),
        max_backlog=config["server.max_backlog_seconds"],
        audit_fraction=config["policies.audit_fraction"],
        seed=options.seed,
    )
    return _compare(options, models, sizes, run_settings)


def _bundle(options: argparse.Namespace, config: Config) -> Bundle:
    """The one bundle that frames go to."""
    from delen.bundle.manifest import load_bundle
    from delen.daemon.build_runtime import bundle_by_name

    folders = [*(bundle_by_name(config, name) for name in options.model), *options.bundle]
    if len(folders) > 1:
        raise ConfigError("--link: give one --model or --bundle; frames go to one model")
    return load_bundle(folders[0] if folders else bundle_by_name(config, config["models.default"]))


def _options_of(bundle: Bundle, models: Sequence[SimulatedModel]) -> tuple[FrameOption, ...]:
    """What a client can send to ``models``, those of the sizes of ``bundle``: raw tensors."""
    from math import prod

    import numpy as np

    from policies.client.api import FrameOption

    options = []
    for sized, model in zip(reversed(bundle.sizes), models, strict=True):
        costs, exit = model.costs(), model.planner.useful.deepest
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


def _compare(
    options: argparse.Namespace,
    models: Sequence[SimulatedModel],
    frame_options: tuple[FrameOption, ...],
    settings: RunSettings,
) -> int:
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
    fps = options.fps or DEFAULT_FPS
    streams = [
        StreamSettings(
            name=f"camera-{number}",
            options=frame_options,
            fps=fps,
            deadline=options.deadline or DEFAULT_DEADLINE,
            frames=max(1, round(fps * (options.duration or DEFAULT_DURATION))),
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
