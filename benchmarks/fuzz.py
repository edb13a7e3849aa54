"""``python -m benchmarks fuzz``: what wrong bodies do to what reads them.

A million inputs, made of valid ones by cuts, copies, flipped bits, numbers that are too large and
levels without end, go to every parser of bodies and query strings, by a seed. Claimed is that each
is read or refused with one of delen's errors below 500; that what the event loop reads itself takes
it less than 50 ms, of the thread's processor time; and that memory stays bounded.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from api.infer import READ_AT_ONCE
from api.oip import infer as oip
from api.parse import read_infer, read_json, read_query
from api.reply import JSON
from api.server.body import unpack
from benchmarks.common import Figure, report
from delen.bundle.manifest import InputSpec, Manifest, read_manifest
from delen.bundle.media import IMAGES, RECORDINGS
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine import inputs
from delen.errors import DelenError, InvalidInput
from delen.wire.fleet import Directives
from delen.wire.message import Request
from delen.wire.requests import (
    HistoryFields,
    InferFields,
    Labels,
    PlanFields,
    PowerChange,
    TenantChange,
)

INPUTS = 1_000_000
FREEZE = 0.05
MOST_MEMORY_MB = 450.0
"""An image of 16 million pixels with transparency is held in several forms at once."""
LIMIT = 1_100_000
"""Bytes that a body may have."""
SIDE = 24
_SAMPLE = "cifar10-resnet"
_WORDS = (
    b"\0", b"\xff", b"-", b"1e999", b"NaN", b"9" * 400, b"0" * 50, b"[" * 300, b'{"a":' * 100,
    b'"', b"\\ud800", b"null", b"true", b"'", b",", b"(", b")", b"\xff\xda", b"\xff\xff\xff\x7f",
    b"\0\0\0\x80", b"\xff\xff\xff\xff", b"%", b"&", b"=", b"+", b"\r\n", b"\xf0\x9f\x92\xa9",
)  # fmt: skip


@dataclass(frozen=True)
class Parser:
    """What reads a body: ``read`` raises a DelenError for a wrong one. ``seeds`` are right ones.
    The event loop calls it for bodies of at most ``at_once`` bytes."""

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    at_once: float = -1


def parsers() -> dict[str, Parser]:
    """Every parser by its name."""
    manifest, _ = read_manifest(SHIPPED_BUNDLES / _SAMPLE)
    spoken, _ = read_manifest(SHIPPED_BUNDLES / "spoken-digits")
    image, audio = manifest.input, spoken.input
    floats = InputSpec("float32", (4, 3))
    found = {
        "JSON of bytes": _infer(JSON, image, _json_seeds((SIDE, SIDE, 3), int)),
        "JSON of floats": _infer(JSON, floats, _json_seeds((4, 3), float)),
        ".npy": _infer(inputs.NPY, floats, _npy_seeds()),
        "raw": _infer(inputs.RAW, floats, [bytes(48), bytes(480)]),
        "query": Parser(
            [b"max_latency_ms=20&min_accuracy=0.8&tenant=cam", b"top_k=3&probabilities=true"],
            lambda raw: read_infer(inputs.RAW, raw.decode("latin-1"), bytes(48), floats),
            LIMIT,
        ),
        "history query": Parser([b"seconds=600"], _query(HistoryFields), LIMIT),
        "gzip": Parser([gzip.compress(bytes(5000)), gzip.compress(b"abc")], _unpack),
        "OIP": Parser(_oip_seeds(manifest), partial(_read_oip, manifest), READ_AT_ONCE[JSON]),
        "control": Parser(_control_seeds(), _read_control),
    }
    for media_type, form in IMAGES.items():
        found[form] = _infer(media_type, image, _image_seeds(form))
    for form in sorted(set(RECORDINGS.values())):
        media_type = next(name for name, kind in RECORDINGS.items() if kind == form)
        found[form] = _infer(media_type, audio, _audio_seeds(form))
    return found


def mutate(seed: bytes, draw: random.Random) -> bytes:
    """``seed`` with one to four things done to it."""
    made = bytearray(seed)
    for _ in range(draw.randint(1, 4)):
        begin = draw.randrange(len(made) + 1)
        end = min(len(made), begin + draw.choice((1, 2, 4, 16, 256)))
        kind = draw.randrange(7)
        if kind == 0 and made:
            made[begin % len(made)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del made[begin:end]
        elif kind == 2:
            made[begin:begin] = made[begin:end] * draw.choice((1, 2, 50))
        elif kind == 3:
            made[begin:begin] = draw.choice(_WORDS)
        elif kind == 4:
            made[begin:end] = draw.choice(_WORDS)
        elif kind == 5:
            made[begin:end] = draw.randbytes(end - begin)
        elif draw.random() < 0.2:
            del made[begin:]
    return bytes(made[:LIMIT])


def cases(count: int, seed: int) -> Iterator[tuple[str, Parser, bytes]]:
    """``count`` inputs, of each parser in turn."""
    draw, known = random.Random(seed), list(parsers().items())
    for number in range(count):
        name, parser = known[number % len(known)]
        yield name, parser, mutate(draw.choice(parser.seeds), draw)


def problem(parser: Parser, body: bytes) -> str | None:
    """What is wrong with how ``body`` is read, if anything is."""
    try:
        parser.read(body)
    except DelenError as error:
        return None if error.status < 500 and str(error) else f"{error.status}: {error!r}"
    except Exception as error:
        return repr(error)
    return None


def _infer(media_type: str, spec: InputSpec, seeds: Sequence[bytes]) -> Parser:
    def read(raw: bytes) -> object:
        return read_infer(media_type, "", raw, spec)

    return Parser(seeds, read, READ_AT_ONCE.get(media_type, -1))


def _query(kind: type[Request]) -> Callable[[bytes], object]:
    return lambda raw: read_query(kind, raw.decode("latin-1"))


def _unpack(raw: bytes) -> bytes:
    return unpack(raw, LIMIT)


def _json_seeds(shape: tuple[int, ...], kind: type) -> list[bytes]:
    values = np.arange(np.prod(shape)).reshape(shape) % 256
    one, fields = values.astype(kind).tolist(), {"max_latency_ms": 20.5, "tenant": "cam"}
    many = values.astype(kind)[None].repeat(12, 0).tolist()
    documents: list[Any] = [{"input": one, **fields}, {"input": many}, {"input": "text"}]
    return [json.dumps(each).encode() for each in documents]


def _npy_seeds() -> list[bytes]:
    seeds = []
    for array in (np.zeros((4, 3), np.float32), np.zeros((2, 4, 3), np.float64, "F")):
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append(buffer.getvalue())
    return seeds


def _image_seeds(form: str) -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PPM": ("RGB", "L"), "BMP": ("RGB", "P")}
    seeds = []
    for mode in modes.get(form, ("RGB", "RGBA", "P", "L")):
        buffer = io.BytesIO()
        made = Image.fromarray(noise).convert("RGB").convert(mode)
        how = {"progressive": True} if form == "JPEG" and mode == "RGB" else {}
        made.save(buffer, form, **how)
        seeds.append(buffer.getvalue())
    if form == "PPM":
        seeds.append(b"P3 4 4 255 " + b"7 " * 48)
    return seeds


def _audio_seeds(form: str) -> list[bytes]:
    import soundfile

    seeds = []
    for rate, channels in ((8000, 1), (44_100, 2)):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.zeros((400, channels)), rate, format=form)
        seeds.append(buffer.getvalue())
    return seeds


def _oip_seeds(manifest: Manifest) -> list[bytes]:
    values = [0] * int(np.prod(manifest.input.shape))
    tensor = {"name": "input", "datatype": "UINT8", "shape": [1, *manifest.input.shape]}
    asked = {"id": "a", "inputs": [{**tensor, "data": values}], "parameters": {"tenant": "cam"}}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    return [json.dumps(each).encode() for each in (asked, {**asked, "outputs": outputs})]


def _read_oip(manifest: Manifest, raw: bytes) -> object:
    body = oip._parse(raw, False, None, manifest, LIMIT, _no_region)
    return body.query.with_samples(body.read())


def _no_region(*_: object) -> Any:
    raise InvalidInput("there is no such region", "inputs")


def _control_seeds() -> list[bytes]:
    documents: list[Mapping[str, Any]] = [
        {"watt_cap_w": 9.5, "battery": {"energy_wh": 50, "last_s": 60, "reserve_wh": 1}},
        {"weight": 2, "priority": 3, "energy_budget": {"energy_j": 5, "period_s": 60}},
        {"labels": {"a": 1, "b": "cat"}},
        {"max_latency_ms": 20, "min_accuracy": 0.8, "tenant": "cam"},
        {
            "lease_s": 3,
            "ceilings": {"cam": {"exit": 2, "size": [24, 24]}},
            "prices": {"cam": {"per_second": 0.5, "per_joule": 0.1}},
            "resident": ["pets"],
        },
    ]
    return [json.dumps(each).encode() for each in documents]


def _read_control(raw: bytes) -> object:
    document = read_json(raw)
    first: DelenError | None = None
    for kind in (PowerChange, TenantChange, Directives, Labels, PlanFields, InferFields):
        try:
            read = kind.read(document)
            if isinstance(read, (PowerChange, TenantChange)):
                return read.changes()
            return (read.bounds(), read.options()) if isinstance(read, PlanFields) else read
        except DelenError as error:
            if error.status >= 500:
                raise
            first = first or error
    assert first is not None
    raise first


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> list[Figure]:
    longest: dict[str, float] = {}
    wrong: list[str] = []
    before = 0.0
    gc.collect()
    gc.freeze()  # as the daemon does
    for number, (name, parser, body) in enumerate(cases(INPUTS, seed=0)):
        if number == 1000:
            before = _peak_mb()
        began = time.thread_time()
        found = problem(parser, body)
        seconds = time.thread_time() - began
        if len(body) <= parser.at_once:
            longest[name] = max(longest.get(name, 0.0), 1e3 * seconds)
        if found is not None:
            wrong.append(f"{name}: {found}: {body[:200]!r}")
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    times = [
        Figure(f"longest of {name}, on the event loop", (value,), "ms", 1e3 * FREEZE)
        for name, value in longest.items()
    ]
    return report(
        f"{INPUTS:,} wrong inputs",
        [
            Figure("that no error of delen refuses", (float(len(wrong)),), "", 0.0),
            *times,
            Figure("memory that they take", (_peak_mb() - before,), "MB", MOST_MEMORY_MB),
        ],
    )


if __name__ == "__main__":
    main()
