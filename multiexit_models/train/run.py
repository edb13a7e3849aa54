"""One training from step to step, and when it is saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from delen.errors import InvalidInput
from multiexit_models.data.dataset import Labelled
from multiexit_models.data.trained_on import TrainedOn
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.augment import Augmentation, resize, shorten
from multiexit_models.train.checkpoint import Identity, Moment, load_checkpoint, save_checkpoint
from multiexit_models.train.device import mixed_precision
from multiexit_models.train.losses import joint_loss
from multiexit_models.train.optimiser import MatrixMuon, lr_factor
from multiexit_models.train.random_state import randomness, set_randomness
from multiexit_models.train.recipe import Recipe


class Run:
    """One training: its steps, the order of its samples, and its progress."""

    def __init__(
        self,
        network: MultiExitNetwork,
        data: Labelled,
        recipe: Recipe,
        vary: Augmentation,
        where: torch.device,
    ) -> None:
        self.network = network
        self.optimiser = MatrixMuon(network, recipe)
        self._data, self._recipe, self._vary, self._where = data, recipe, vary, where
        self._batches = len(data) // recipe.batch_size
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._draw_order()
        self.total = self._batches * recipe.epochs
        self.done = 0

    def moment(self) -> Moment:
        return Moment(
            step=self.done,
            order=self._before_order,
            generator=self._generator.get_state(),
            randomness=randomness(self._where),
        )

    def go_to(self, moment: Moment) -> None:
        """Go on from ``moment``, with the same draws as after it."""
        self.done = moment.step
        self._generator.set_state(moment.order)
        self._draw_order()
        self._generator.set_state(moment.generator)
        set_randomness(moment.randomness, self._where)

    def ends_epoch(self) -> bool:
        return self.done % self._batches == 0

    def steps(self) -> Iterator[float]:
        """Train to the end; yields the loss before each step once the step is done."""
        size = self._recipe.batch_size
        while self.done < self.total:
            if self.done and self.ends_epoch():
                self._draw_order()
            first = self.done % self._batches * size
            loss = self._step(self._order[first : first + size])
            self.done += 1
            yield loss

    def _draw_order(self) -> None:
        self._before_order = self._generator.get_state()
        self._order = torch.randperm(len(self._data), generator=self._generator)

    def _step(self, chosen: Tensor) -> float:
        """One step on the samples ``chosen``; the loss before it."""
        rows = chosen.numpy()
        inputs = torch.from_numpy(np.asarray(self._data.inputs[rows])).to(self._where)
        labels = torch.from_numpy(np.asarray(self._data.labels[rows]))
        inputs = self._scaled(self._vary(inputs, self._generator))
        with mixed_precision(self._where):
            logits = [exit.float() for exit in self._forward(inputs)]
        _check_labels(labels, logits[-1].shape[1])
        loss = joint_loss(logits, labels.to(self._where), self._recipe)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.done} of {self.total}")
        torch.autograd.backward(loss)
        self.optimiser.step(lr_factor((self.done + 1) / self.total))
        return value

    def _scaled(self, inputs: Tensor) -> Tensor:
        sizes = self._recipe.sizes
        if sizes:
            drawn = int(torch.randint(len(sizes) + 1, (), generator=self._generator))
            return inputs if drawn == len(sizes) else resize(inputs, *sizes[drawn])
        side, epoch = self._recipe.small_side, self.done // self._batches
        if side is None or epoch >= self._recipe.small_share * self._recipe.epochs:
            return inputs
        return shorten(inputs, side)

    def _forward(self, features: Tensor) -> list[Tensor]:
        logits = []
        for segment, head in zip(self.network.segments, self.network.heads, strict=True):
            with torch.set_grad_enabled(not self._recipe.frozen_backbone):
                features = segment(features)
            logits.append(head(features))
        return logits


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise InvalidInput(
            f"the labels are from {labels.min()} to {labels.max()}, and the network has "
            f"{classes} classes, 0 to {classes - 1}",
            "data",
        )


class Saves:
    """Saves a run now and then, and never weights that are not finite."""

    def __init__(
        self,
        run: Run,
        file: Path | None,
        identity: Identity | None,
        trained_on: TrainedOn | None,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._run, self._file, self._identity = run, file, identity
        self._trained_on = trained_on
        self._seconds, self._clock = seconds, clock
        self._last = clock()
        self._kept: int | None = None

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self._file is None or self._identity is None or not self._file.exists():
            return
        run = self._run
        moment = load_checkpoint(self._file, run.network, run.optimiser, self._identity)
        run.go_to(moment)
        self._kept = moment.step

    def after_step(self) -> None:
        """Save if it is time. Raises FloatingPointError when the weights are not finite."""
        run = self._run
        due = self._file is not None and self._clock() - self._last >= self._seconds
        if not (due or run.ends_epoch()):
            return
        if not _is_finite(run.network):
            raise FloatingPointError(
                f"the weights are no longer finite after step {run.done} of {run.total}"
            )
        if self._file is None or self._identity is None:
            return
        save_checkpoint(
            self._file,
            run.network,
            run.optimiser,
            self._identity,
            run.moment(),
            self._trained_on,
        )
        self._last, self._kept = self._clock(), run.done

    def kept(self) -> str:
        """What the checkpoint keeps of a run that failed, as the end of a sentence."""
        if self._kept is None:
            return "" if self._file is None else "; there is no checkpoint yet"
        return f"; {self._file} keeps the last good weights, after step {self._kept}"


def _is_finite(network: MultiExitNetwork) -> bool:
    """No weight is infinite or NaN, and no buffer NaN: masks are buffers that have infinities."""
    return all(bool(torch.isfinite(p).all()) for p in network.parameters()) and not any(
        bool(torch.isnan(b).any()) for b in network.buffers()
    )
