"""Tests whether a model's answers still keep what its calibration promised."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral

from delen.bundle.manifest import Manifest
from delen.core.events import EventBus
from delen.core.guarantee import Feedback, GuaranteeStatus, Source
from delen.core.typed_reader import shown
from delen.errors import InvalidInput
from policies.plan.drift import DriftTest
from policies.plan.planner import DEPARTED, NOT_GUARANTEED
from policies.plan.promises import Terms

log = logging.getLogger("delen.engine")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """``delta``: the probability of a false alarm, for as long as the model is loaded.
    ``window``: how many answers are remembered for labels. ``audit_fraction``: the fraction of
    confident stops that is run on to the deepest exit; 0 for none."""

    delta: float = 0.05
    window: int = 10_000
    audit_fraction: float = 0.0


@dataclass(slots=True)
class _Answer:
    number: int
    index: int
    terms: Terms | None
    labelled: bool = False


class GuaranteeMonitor:
    """Remembers the last answers of one model, and tests its promises as outcomes come in.

    It also knows at which sizes inputs are not like the calibration data, for as long as they are
    not. Labels and audits are tested apart; where there are audits, each has half of ``delta``.
    ``group`` is the size of the largest group in the calibration table: where it is above 1,
    answers of one group are not independent of each other. Safe to call from many threads; no
    lock is held for longer than one outcome takes.
    """

    def __init__(
        self,
        model: str = "a model",
        settings: MonitorSettings | None = None,
        group: int = 1,
        events: EventBus | None = None,
    ) -> None:
        settings = settings or MonitorSettings()
        self._events = events or EventBus()
        self._model = model
        self._window = settings.window
        self._fraction = settings.audit_fraction
        share = settings.delta / 2 if settings.audit_fraction > 0 else settings.delta
        self._tests: dict[Source, DriftTest] = {
            "labels": DriftTest(share, group),
            "agreement": DriftTest(share, group),
        }
        self._holds = True
        self._departed: frozenset[str] = frozenset()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._remembered = 0
        self._stops = self._stops_audited = 0
        self._memory = threading.Lock()
        self._testing = threading.Lock()

    @property
    def holds(self) -> bool:
        """False once the promises are refuted; a model that is loaded anew starts afresh."""
        return self._holds

    @property
    def unguaranteed(self) -> str | None:
        """Why nothing is promised now; None where something is."""
        if not self._holds:
            return NOT_GUARANTEED
        return DEPARTED if self._departed else None

    @property
    def has_departed(self) -> bool:
        """Whether inputs at any size are not like the calibration data."""
        return bool(self._departed)

    def follow(self, variant: str, has_departed: bool) -> None:
        """Take in whether inputs at the size of ``variant`` are not like the calibration data."""
        if has_departed == (variant in self._departed):
            return
        with self._testing:
            before = self.unguaranteed
            self._departed ^= {variant}
            after = self.unguaranteed
        if before is None and after is not None:
            self._events.publish("guarantee_lost", model=self._model, problem=after)
        elif before is not None and after is None:
            self._events.publish("guarantee_regained", model=self._model)

    def remember(self, request_id: str, index: int, terms: Terms | None) -> None:
        """Keep the class ``index`` of an answer for a label that may follow; ``terms`` are None
        where nothing is promised of the answer."""
        with self._memory:
            self._remembered += 1
            self._answers[request_id] = _Answer(self._remembered, index, terms)
            if len(self._answers) > self._window:
                self._answers.popitem(last=False)

    def label(self, labels: Mapping[str, int], promised: Callable[[Terms], float]) -> Feedback:
        """Accept the right classes of answers by request id. ``promised`` gives the error rate of
        terms. They count in the order of the answers, not of the labels, so that no order can
        make a run of errors."""
        accepted: list[tuple[int, bool, Terms | None]] = []
        repeated, unknown = 0, []
        for request_id, index in labels.items():
            with self._memory:
                answer = self._answers.get(request_id)
                if answer is None:
                    unknown.append(request_id)
                elif answer.labelled:
                    repeated += 1
                else:
                    answer.labelled = True
                    accepted.append((answer.number, answer.index != index, answer.terms))
        for _, wrong, terms in sorted(accepted, key=lambda item: item[0]):
            if terms is not None:
                self._add("labels", wrong, promised(terms))
        wrong_answers = sum(wrong for _, wrong, _ in accepted)
        return Feedback(len(accepted), wrong_answers, repeated, tuple(unknown), self.status())

    def audits(self, has_room: bool = True) -> int:
        """How many early stops an audit of the one that happened now stands for: all since the last
        audit. 0 if it is not to be audited, or if there is no room for it."""
        with self._memory:
            before = int(self._stops * self._fraction)
            self._stops += 1
            if not has_room or int(self._stops * self._fraction) == before:
                return 0
            count = self._stops - self._stops_audited
            self._stops_audited = self._stops
            return count

    def audited(self, agrees: bool, promised: float) -> None:
        """Count whether the deepest exit agrees with an early answer. At most a fraction
        ``promised`` of them should differ."""
        self._add("agreement", not agrees, promised)

    def _add(self, source: Source, wrong: bool, promised: float) -> None:
        with self._testing:
            test = self._tests[source]
            test.add(wrong, promised)
            broken = self._holds and not test.holds
            if broken:
                self._holds = False
        if broken:
            self._events.publish("guarantee_lost", model=self._model, problem=NOT_GUARANTEED)
            log.warning(
                "the guarantee of %s no longer holds, by %s: %d of %d outcomes are wrong; at most "
                "%.2f %% were promised. Nothing is promised, and no threshold stops a request "
                "early (caps and the dispatch policy still do), until the model is loaded again; "
                "calibrate it on present data",
                self._model,
                source,
                test.errors,
                test.samples,
                100 * test.promised / test.samples,
            )

    def status(self) -> GuaranteeStatus:
        with self._testing:
            source: Source = max(
                self._tests, key=lambda s: (self._tests[s].evidence, self._tests[s].samples > 0)
            )
            test = self._tests[source]
            return GuaranteeStatus(
                holds=self.unguaranteed is None,
                source=source if test.samples else None,
                samples=test.samples,
                errors=test.errors,
                promised=test.promised / test.samples if test.samples else None,
                evidence=test.evidence,
                delta=test.delta,
                unguaranteed=self.unguaranteed,
            )


def read_labels(labels: Mapping[str, object], manifest: Manifest) -> dict[str, int]:
    """The classes of posted ``labels``, each an index or a name; InvalidInput names a wrong one."""
    return {request_id: _read_class(label, manifest) for request_id, label in labels.items()}


def _read_class(label: object, manifest: Manifest) -> int:
    if isinstance(label, str):
        if manifest.labels is None:
            raise InvalidInput(
                f"{label!r} is not a class of {manifest.name}: its classes have no names, only "
                f"indices from 0 to {manifest.classes - 1}",
                "labels",
            )
        if label not in manifest.labels:
            raise InvalidInput(
                f"{label!r} is not a class of {manifest.name}; known: {', '.join(manifest.labels)}",
                "labels",
            )
        if manifest.labels.count(label) > 1:
            raise InvalidInput(
                f"{label!r} is the name of several classes of {manifest.name}; give the index",
                "labels",
            )
        return manifest.labels.index(label)
    if isinstance(label, bool) or not isinstance(label, Integral):
        raise InvalidInput(
            f"a label must be the index or the name of a class, not {shown(label)}", "labels"
        )
    index = int(label)
    if not 0 <= index < manifest.classes:
        raise InvalidInput(
            f"{index} is not a class of {manifest.name}; its indices are from 0 to "
            f"{manifest.classes - 1}",
            "labels",
        )
    return index
