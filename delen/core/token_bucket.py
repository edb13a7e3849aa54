"""The token bucket: what may be spent at once so that a mean rate is kept."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(slots=True, eq=False)
class TokenBucket:
    """Gains ``rate`` tokens a second up to ``depth``; spending more than it has leaves a debt.

    ``tokens`` are those at the time ``filled``. ``most_debt`` bounds the debt that a fill starts
    from.
    """

    rate: float
    depth: float
    tokens: float
    filled: float
    most_debt: float = inf

    def fill(self, now: float) -> None:
        """Gain the tokens up to ``now``; an earlier time changes no token but what ``depth`` and
        ``most_debt`` cut off."""
        tokens = self.tokens
        if tokens < -self.most_debt:
            tokens = -self.most_debt
        if now > self.filled:
            tokens += self.rate * (now - self.filled)
            self.filled = now
        self.tokens = tokens if tokens < self.depth else self.depth

    def spend(self, tokens: float) -> None:
        """Take ``tokens``; below 0 gives back what was taken too much."""
        self.tokens -= tokens

    def wait(self, tokens: float) -> float:
        """Seconds until there are ``tokens``, or ``depth`` if that is less; infinite if never."""
        missing = min(tokens, self.depth) - self.tokens
        if missing <= 0:
            return 0.0
        return missing / self.rate if self.rate > 0 else inf
