"""What a builder is told of a checkpoint: that a training goes on from it, and that it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from delen.errors import InvalidInput
from multiexit_models.progress import Bar
from multiexit_models.train.recipe import Recipe


def resume_note(file: Path, recipe: Recipe, bar: Bar) -> Callable[[int, int], None]:
    """An ``on_resume`` of ``train`` that says from where the training goes on."""

    def say(step: int, steps: int) -> None:
        epoch = step * recipe.epochs // steps
        bar.note(
            f"going on from {file}: {step} of {steps} steps are done, {epoch} of {recipe.epochs} "
            "epochs"
        )

    return say


@contextmanager
def checkpoint_named(file: Path, bar: Bar, trains: bool) -> Iterator[None]:
    """Where the block fails, say what keeps the training, and how to go on."""
    try:
        yield
    except BaseException as error:
        says_so = isinstance(error, FloatingPointError) or (
            isinstance(error, InvalidInput) and error.field == "checkpoint"
        )
        if trains and not says_so and file.exists():
            bar.note(
                f"{file} keeps what was trained; the same command goes on from there, also with "
                "other options for the bundle"
            )
        raise
