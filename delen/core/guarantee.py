"""Whether what was promised still holds, and what became of labels that were posted back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeldOut = Literal["known", "declared", "unknown"]
Source = Literal["labels", "agreement"]


@dataclass(frozen=True, slots=True)
class GuaranteeStatus:
    """Evidence against the promises of a model since it was loaded.

    ``source`` says which outcomes weigh the most: ``labels`` posted back, or ``agreement`` of
    early answers with the deepest exit; None while there are none. ``samples`` of them were
    looked at, ``errors`` were wrong (or did not agree), where a share of at most ``promised``
    was promised. ``holds`` is false once the evidence has reached 1 / ``delta``, which happens
    with probability ``delta`` at most while all promises are kept, and while inputs are not like
    the calibration data; ``unguaranteed`` says why.
    """

    holds: bool
    source: Source | None
    samples: int
    errors: int
    promised: float | None
    evidence: float
    delta: float
    unguaranteed: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of posted labels.

    ``accepted`` are new ones of remembered answers, of which ``wrong`` differ from the answer;
    ``repeated`` had a label already, which counts once; ``unknown`` are request ids that are
    not remembered (any more).
    """

    accepted: int
    wrong: int
    repeated: int
    unknown: tuple[str, ...]
    guarantee: GuaranteeStatus
