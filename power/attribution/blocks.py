"""Readings of some seconds as blocks, and the blocks that are kept as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from power.sources.series import Floats

_FADES = 240.0  # seconds in which what a block says fades


@dataclass(slots=True)
class Block:
    """``watts`` ``[n]`` of readings, and what they would ``show`` ``[n, s, k]`` of each segment at
    each lag. It may ``follow`` on the one before; ``trust`` is its weight."""

    times: Floats
    watts: Floats
    shows: Floats
    follows: bool
    trust: float = 1.0

    def part(self, chosen: slice, follows: bool) -> Block:
        return Block(self.times[chosen], self.watts[chosen], self.shows[chosen], follows)

    def joined(self, later: Block) -> Block:
        return Block(
            np.concatenate([self.times, later.times]),
            np.concatenate([self.watts, later.watts]),
            np.concatenate([wide(self.shows, later.shows.shape[1]), later.shows]),
            self.follows,
        )


class Blocks:
    """All blocks as one: rows, and which block each is ``of``."""

    def __init__(self, blocks: Sequence[Block], count: int) -> None:
        self.sizes = np.array([len(block.times) for block in blocks])
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.of: NDArray[np.intp] = np.repeat(np.arange(len(blocks)), self.sizes)
        self.watts = np.concatenate([block.watts for block in blocks])
        self.shows = np.concatenate([wide(block.shows, count) for block in blocks])
        self.follows = np.array([block.follows for block in blocks[1:]], dtype=bool)
        ages = np.array([block.times[-1] for block in blocks]) - blocks[-1].times[-1]
        self.trust = np.exp(ages / _FADES) * [block.trust for block in blocks]

    def centred(self, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """``values`` ``[n, m]`` less their means by block, and these."""
        sums = np.add.reduceat(values * weights[:, None], self.starts)
        means = sums / np.add.reduceat(weights, self.starts)[:, None]
        return values - means[self.of], means


def wide(shows: Floats, count: int) -> Floats:
    """``shows`` of ``count`` segments: nothing of those that came later."""
    missing = count - shows.shape[1]
    return np.pad(shows, ((0, 0), (0, missing), (0, 0))) if missing > 0 else shows[:, :count]
