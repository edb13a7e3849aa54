"""Reads profile files: this schema and the one before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from delen.core.strict_reader import Fields
from delen.errors import ProfileError
from delen.profile.profile import (
    FORMAT,
    SCHEMAS,
    Device,
    Disturbance,
    HostCosts,
    Metering,
    Profile,
    Quantiles,
    SegmentCost,
)

Fail = Callable[[str], ProfileError]


def load_profile(file: Path) -> Profile:
    """Read a profile file; ProfileError naming the file and what is wrong with it."""

    def fail(sentence: str) -> ProfileError:
        return ProfileError(f"{file}: {sentence}")

    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise fail(f"cannot be read as JSON: {error}") from error
    root = Fields(document, "the profile", fail)
    if root.text("format", default="none") != FORMAT:
        raise fail(f"format must be {FORMAT!r}: this is not a delen profile")
    if (schema := root.integer("schema")) not in SCHEMAS:
        known = " or ".join(map(str, SCHEMAS))
        raise fail(f"schema {schema} is not {known}, those that this delen reads")
    smaller = tuple(
        _parse_profile(Fields(entry, f"the profile.smaller[{index}]", fail), schema, fail)
        for index, entry in enumerate(root.array("smaller", None) or [])
    )
    return replace(_parse_profile(root, schema, fail), smaller=smaller)


def _parse_profile(root: Fields, schema: int, fail: Fail) -> Profile:
    energies = root.mapping("energy", None) if schema > 1 else None
    device = root.child("device")
    profile = Profile(
        model=root.text("model"),
        bundle=root.text("bundle"),
        device=Device(
            processor=device.text("processor"),
            cores=device.integer("cores"),
            backend=device.text("backend"),
            provider=device.text("provider"),
            threads=device.integer("threads"),
            power_mode=device.text("power_mode"),
        ),
        created=root.text("created"),
        quick=root.boolean("quick"),
        answer=_parse_quantiles(root.child("answer_ms"), fail),
        segments=tuple(
            _parse_segment(fields, schema, energies is not None, fail)
            for fields in root.children("segments")
        ),
        energy=None if energies is None else _parse_metering(energies, fail),
        accuracies=_parse_accuracies(root.array("accuracies", None), fail),
        interference=_parse_interference(root.array("corun", None), fail),
        host=_parse_host(root.mapping("host", None), fail),
        measured=_parse_disturbance(root.mapping("measured", None), fail),
    )
    device.finish()
    root.finish()
    if not profile.segments:
        raise fail("segments is empty")
    if profile.accuracies is not None and len(profile.accuracies) != len(profile.segments):
        raise fail(f"accuracies has {len(profile.accuracies)} exits, segments has another number")
    return profile


def _parse_accuracies(values: list[Any] | None, fail: Fail) -> tuple[float, ...] | None:
    if values is None:
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise fail(f"accuracies must be numbers between 0 and 1, not {value!r}")
    return tuple(map(float, values))


def _parse_interference(values: list[Any] | None, fail: Fail) -> tuple[float, ...] | None:
    if values is None:
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < 1e6:
            raise fail(f"corun must be factors of at least 1, not {value!r}")
    if not values or values[0] != 1:
        raise fail(f"corun must begin with 1, for an instance that runs alone, not be {values!r}")
    return tuple(map(float, values))


def _parse_disturbance(entry: Any, fail: Fail) -> Disturbance | None:
    if entry is None:
        return None
    fields = Fields(entry, "the profile.measured", fail)
    disturbance = Disturbance(fields.boolean("busy"), fields.number("others"))
    fields.finish()
    if disturbance.others < 0:
        raise fail("measured.others must be at least 0")
    return disturbance


def _parse_host(entry: Any, fail: Fail) -> HostCosts | None:
    if entry is None:
        return None
    fields = Fields(entry, "the profile.host", fail)
    names = ("request", "batch", "task", "answer")
    values = {name: fields.number(f"{name}_ms") / 1e3 for name in names}
    entry = fields.mapping("stretch", None)
    fields.finish()
    if min(values.values()) < 0:
        raise fail("host must have nothing below 0")
    if entry is None:
        return HostCosts(**values)
    fields = Fields(entry, "the profile.host.stretch", fail)
    levels = [fields.number(name) for name in ("p50", "p90", "p95", "p99")]
    fields.finish()
    if levels != sorted(levels) or levels[0] <= 0:
        raise fail("host.stretch must be above 0 and ascend from p50 to p99")
    return HostCosts(**values, stretch=Quantiles(*levels))


def _parse_quantiles(fields: Fields, fail: Fail) -> Quantiles:
    values = [fields.number(name) / 1e3 for name in ("p50", "p90", "p95", "p99")]
    fields.finish()
    if values != sorted(values) or values[0] < 0:
        raise fail("latency quantiles must be at least 0 and ascend from p50 to p99")
    return Quantiles(*values)


def _parse_metering(entry: Any, fail: Fail) -> Metering:
    fields = Fields(entry, "the profile.energy", fail)
    metering = Metering(
        fields.text("source"),
        fields.text("scope"),
        fields.number("idle_w"),
        fields.integer("blocks"),
        fields.number("block_s"),
    )
    fields.finish()
    if metering.blocks < 1 or metering.block_seconds <= 0:
        raise fail("energy needs blocks and block_s above 0")
    return metering


def _parse_segment(
    fields: Fields, schema: int, metered: bool, fail: Fail
) -> dict[int, SegmentCost]:
    batches = fields.mapping("batches")
    fields.finish()
    costs = {}
    for key, entry in batches.items():
        if not str(key).isdecimal() or int(key) < 1:
            raise fail(f"batch sizes must be whole numbers above 0, not {key!r}")
        where = f"batches[{key}]"
        cost = Fields(entry, where, fail)
        latency = _parse_quantiles(cost.child("latency_ms"), fail)
        processor_ms = cost.number("processor_ms")
        if schema == 1:  # its energies do not say who measured them, so they are not taken over
            cost.number("energy_mj", None)
            energies = None
        else:
            energies = cost.mapping("energy_mj", None)
        cost.finish()
        if latency.p50 <= 0 or processor_ms < 0:
            raise fail(f"{where} needs a latency above 0, and no cost below 0")
        if energies is not None and not metered:
            raise fail(f"{where} has energy_mj, but the profile's energy does not say whose it is")
        joules = (None, None, None) if energies is None else _parse_energy(energies, where, fail)
        costs[int(key)] = SegmentCost(latency, processor_ms / 1e3, *joules)
    if 1 not in costs:
        raise fail("every segment needs the cost of batch size 1")
    if metered and costs[1].energy is None:
        raise fail("energy needs the energy_mj of every segment at batch size 1")
    return costs


def _parse_energy(
    entry: Any, where: str, fail: Fail
) -> tuple[float, float | None, tuple[float, float] | None]:
    fields = Fields(entry, f"{where}.energy_mj", fail)
    marginal = fields.number("marginal") / 1e3
    gross, low, high = (
        None if (value := fields.number(name, None)) is None else value / 1e3
        for name in ("gross", "low", "high")
    )
    fields.finish()
    if marginal < 0 or (gross is not None and gross < 0):
        raise fail(f"{where}.energy_mj must have nothing below 0")
    if low is None or high is None:
        return marginal, gross, None
    if not 0 <= low <= marginal <= high:
        raise fail(f"{where}.energy_mj must have 0 <= low <= marginal <= high")
    return marginal, gross, (low, high)
