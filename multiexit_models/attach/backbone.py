"""An engineer's own network, made by a function in a Python file or module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.attach.exits import attach_exits
from multiexit_models.attach.heads import HeadFactory
from multiexit_models.attach.probe import place_by_probe
from multiexit_models.attach.unwrap import unwrap
from multiexit_models.data.dataset import Labelled
from multiexit_models.network import MultiExitNetwork, Normalise

PROBED = 1000
"""Samples on which places for exits are measured."""


def own_network(
    module: nn.Module,
    input: InputSpec,
    classes: int,
    *,
    at: tuple[str, ...] | None,
    exits: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    head: HeadFactory,
    probe: Labelled | None = None,
    on_part: Callable[[int, int], None] | None = None,
    on_places: Callable[[tuple[str, ...]], None] = lambda names: None,
) -> MultiExitNetwork:
    """Exits on the classifier ``module``.

    They go after the places ``at``, or there are ``exits`` of them: spread by cost, or with
    ``probe``, samples that the network was not trained on, where features and times measured on
    them give the best curve of accuracy over time, ``on_part(done, total)`` called meanwhile.
    ``on_places`` is called with their names.

    A module for images accepts float32 ``[batch, channels, height, width]``, normalised by ``mean``
    and ``std``; any other accepts the input as float32. Raises InvalidInput naming what is wrong.
    """
    if input.image is not None:
        height, width, channels = input.shape
        sample = torch.rand(1, channels, height, width)
        if not len(mean) == len(std) == channels:
            raise InvalidInput(
                f"mean has {len(mean)} and std {len(std)} numbers for {channels} channels", "mean"
            )
        preprocess: nn.Module = Normalise(mean, std)
    else:
        sample, preprocess = torch.rand(1, *input.shape), _AsFloat()
    if probe is not None and exits is not None:
        samples = probe.spread(PROBED)
        with torch.no_grad():
            inputs = preprocess(torch.from_numpy(np.array(samples.inputs)))
        labels = samples.labels
        at = place_by_probe(module.eval(), inputs, labels, exits, on_part=on_part)
        exits = None
    return attach_exits(
        module,
        sample,
        classes,
        at=at,
        exits=exits,
        preprocess=preprocess,
        head=head,
        on_places=on_places,
    )


class _AsFloat(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.float()


def make_module(place: str) -> nn.Module:
    """What the function at ``place``, ``file.py:function`` or ``module:function``, returns: it has
    no arguments, and returns a torch module. Raises InvalidInput naming what is wrong."""
    source, _, name = place.rpartition(":")
    if not source or not name:
        raise InvalidInput(
            f"{place!r} must be FILE.py:FUNCTION or MODULE:FUNCTION, where the function returns "
            "the network",
            "backbone",
        )
    make = getattr(_import(source), name, None)
    if not callable(make):
        raise InvalidInput(f"{source} has no function {name!r}", "backbone")
    try:
        module = make()
    except Exception as error:
        raise InvalidInput(
            f"{place} failed: {type(error).__name__}: {error}", "backbone"
        ) from error
    try:
        return unwrap(module)
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}", "backbone") from None


def _import(source: str) -> object:
    if not source.endswith(".py"):
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise InvalidInput(f"there is no module {source!r}: {error}", "backbone") from error
    file = Path(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InvalidInput(f"there is no Python file {file}", "backbone")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidInput(f"{file} failed: {type(error).__name__}: {error}", "backbone") from error
    return module
