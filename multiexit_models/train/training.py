"""Joint training of all exits with self-distillation from the last, and a network's logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Labelled
from multiexit_models.data.trained_on import TrainedOn
from multiexit_models.network import MultiExitNetwork, set_memory_format
from multiexit_models.train.augment import augmentation
from multiexit_models.train.checkpoint import identify
from multiexit_models.train.device import choose_device, whole_float32
from multiexit_models.train.losses import exit_weights
from multiexit_models.train.random_state import repeatable, seeded
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.run import Run, Saves

OnStep = Callable[[int, int, float], None]
OnProgress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


def train(
    network: MultiExitNetwork,
    data: Labelled,
    recipe: Recipe,
    *,
    input: InputSpec,
    device: str = "auto",
    checkpoint: Path | None = None,
    trained_on: TrainedOn | None = None,
    checkpoint_seconds: float = 60.0,
    on_resume: OnProgress | None = None,
    on_step: OnStep | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train ``network`` in place on ``data``, whose inputs are of ``input``.

    ``device`` is auto (a GPU where torch has one), cpu, cuda or cuda:N; the network returns to
    where it was. ``on_step(step, steps, loss)`` is called after each step, and before the first
    ``on_resume(step, steps)`` where ``step`` steps were done before. An epoch's last samples that
    do not fill a batch are left out.

    With ``checkpoint``, the training is saved there every ``checkpoint_seconds`` of ``clock`` and
    after each epoch, with what its weights were ``trained_on``. Where that file exists, the
    training goes on from it and ends with the same weights, bit for bit, as one that never stopped
    (on the same machine and torch). The file stays when the training is done; then a second call
    only loads its weights.

    Raises InvalidInput for a recipe, data or device that do not fit and for a checkpoint of another
    training, and FloatingPointError when the loss or the weights are no longer finite; the last
    checkpoint, whose weights are finite, then stays.
    """
    where = choose_device(device)
    _check(network, data, recipe, input)
    if checkpoint is not None and not checkpoint.parent.is_dir():
        raise InvalidInput(f"the folder {checkpoint.parent} does not exist", "checkpoint")
    vary = augmentation(input, recipe)
    identity = None if checkpoint is None else identify(network, data, recipe, input)
    with (
        _in_training(network, where, recipe.frozen_backbone),
        seeded(recipe.seed, where),
        repeatable(where),
    ):
        run = Run(network, data, recipe, vary, where)
        saves = Saves(run, checkpoint, identity, trained_on, checkpoint_seconds, clock)
        saves.resume()
        if run.done and on_resume is not None:
            on_resume(run.done, run.total)
        try:
            for loss in run.steps():
                saves.after_step()
                if on_step is not None:
                    on_step(run.done, run.total, loss)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}{saves.kept()}") from error


def predict(
    network: MultiExitNetwork,
    inputs: NDArray[Any],
    batch_size: int = 128,
    device: str = "auto",
    on_sample: OnProgress | None = None,
) -> NDArray[np.float32]:
    """Logits of every exit for ``inputs [n, *shape]``: float32 ``[exits, n, classes]``.

    ``inputs`` may be memory-mapped: it is read ``batch_size`` samples at a time, and
    ``on_sample(done, total)`` is called after each batch. The network returns in evaluation mode to
    the device where it was. Raises InvalidInput for no inputs.
    """
    if not len(inputs):
        raise InvalidInput("there are no inputs to predict", "inputs")
    where, home = choose_device(device), _home(network)
    parts = []
    network.eval().to(where)
    try:
        with torch.no_grad(), whole_float32():
            for start in range(0, len(inputs), batch_size):
                chunk = torch.from_numpy(np.array(inputs[start : start + batch_size]))
                parts.append(torch.stack(network(chunk.to(where))).float().cpu())
                if on_sample is not None:
                    on_sample(start + len(chunk), len(inputs))
    finally:
        network.to(home)
    logits: NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
    return logits


def _check(network: MultiExitNetwork, data: Labelled, recipe: Recipe, input: InputSpec) -> None:
    exit_weights(recipe, len(network.heads))
    if recipe.epochs < 1 or recipe.batch_size < 1:
        raise InvalidInput(
            f"epochs is {recipe.epochs} and batch_size {recipe.batch_size}; both must be 1 or more",
            "recipe",
        )
    if len(data) < recipe.batch_size:
        raise InvalidInput(
            f"batch_size is {recipe.batch_size}, and there are {len(data)} samples to train on; "
            "give more samples or a smaller batch",
            "batch_size",
        )
    wanted = (np.dtype(input.dtype), input.shape)
    if (data.inputs.dtype, data.inputs.shape[1:]) != wanted:
        raise InvalidInput(
            f"the samples are {data.inputs.dtype} {list(data.inputs.shape[1:])}, and the input is "
            f"{wanted[0]} {list(wanted[1])}",
            "data",
        )
    if recipe.small_side is not None:
        _check_small_side(recipe.small_side, input)


def _check_small_side(side: int, input: InputSpec) -> None:
    if input.image is None:
        raise InvalidInput("small_side is for images, not for this input", "small_side")
    if not 1 <= side <= min(input.shape[:2]):
        raise InvalidInput(
            f"small_side is {side}; for images of {input.shape[0]} x {input.shape[1]} pixels it "
            f"must be from 1 to {min(input.shape[:2])}",
            "small_side",
        )


def _home(network: MultiExitNetwork) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def _in_training(network: MultiExitNetwork, where: torch.device, frozen: bool) -> Iterator[None]:
    """The network trains on ``where``; a frozen backbone stays as it is, batch norms included.

    Afterwards it is where it was, in evaluation mode, with its own ``requires_grad`` flags.
    """
    home = _home(network)
    needed = [(p, p.requires_grad) for p in network.parameters()]
    try:
        network.to(where)
        set_memory_format(network, torch.channels_last)
        network.train()
        if frozen:
            network.segments.eval().requires_grad_(False)
        yield
    finally:
        for parameter, was_needed in needed:
            parameter.requires_grad_(was_needed).grad = None
        network.eval().to(home)
