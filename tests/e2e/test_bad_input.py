"""Whatever is sent: a clear error that names the field, and the daemon serves on."""

from __future__ import annotations

import io
import json
import pickle
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon

Image8 = NDArray[np.uint8]
Encode = Callable[..., bytes]
RAW, NPY, PNG, JPEG = (
    "application/octet-stream",
    "application/x-npy",
    "image/png",
    "image/jpeg",
)


@pytest.fixture(autouse=True)
def serves_afterwards(api: Api, image: Image8) -> Iterator[None]:
    """Every test here ends with a good request."""
    yield
    assert api.raw(image).status == 200


def _read_answer(connection: socket.socket) -> bytes:
    """All that comes until the daemon closes or the answer is whole."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (piece := connection.recv(65536)):
            return received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            while missing > 0 and (piece := connection.recv(65536)):
                received += piece
                missing -= len(piece)
    return received


def _error_of(received: bytes, status: int, code: str) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == str(status).encode(), received[:400]
    document: dict[str, Any] = json.loads(body)
    assert document["code"] == code
    return document


# --- the input itself


def _nested(fill: Any) -> list[Any]:
    return [[[fill] * 3 for _ in range(32)] for _ in range(32)]


def _with_one(odd: Any) -> list[Any]:
    nested = _nested(7)
    nested[3][5][1] = odd
    return nested


@pytest.mark.parametrize(
    "value",
    [
        _nested(1)[:31],
        [1, 2, 3],
        [],
        [[]],
        [_nested(1), _nested(1)[:5]],
        [*_nested(1)[:31], [[1, 2, 3]] * 31],
        _with_one([1]),
        _with_one("7"),
        _with_one(None),
        _with_one({"a": 1}),
        _with_one(300),
        _with_one(-1),
        _with_one(1.5),
        _with_one(2**64),
        _with_one(10**400),
        _with_one(float("nan")),
        _with_one(float("inf")),
        "a string",
        7,
        None,
        {"data": []},
        True,
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_wrong_list_is_refused(api: Api, value: Any) -> None:
    assert api.as_json({"input": value}).error(400, "invalid_input")["field"] == "input"


@pytest.mark.parametrize(
    ("value", "said"),
    [(300, "0 to 255"), (-1, "0 to 255"), (1.5, "whole numbers"), ("7", "whole numbers")],
)
def test_the_error_says_what_a_uint8_takes(api: Api, value: Any, said: str) -> None:
    assert said in api.as_json({"input": _with_one(value)}).json()["error"]


def test_a_wrong_shape_names_both_shapes(api: Api, npy: Encode) -> None:
    body = npy(np.zeros((3, 32, 32), np.uint8))
    error = api.post("/v1/infer", body=body, content_type=NPY).error(400, "invalid_input")
    assert "[3, 32, 32]" in error["error"]
    assert "[32, 32, 3]" in error["error"]


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64", "bool", "U1", "V3", "complex64"])
def test_a_wrong_dtype_is_refused(api: Api, npy: Encode, dtype: str) -> None:
    body = npy(np.zeros((32, 32, 3), dtype))
    error = api.post("/v1/infer", body=body, content_type=NPY).error(400, "invalid_input")
    assert error["field"] == "input"
    assert "uint8" in error["error"]


@pytest.mark.parametrize("length", [0, 1, 3071, 3073, 4000])
def test_a_wrong_length_names_the_right_one(api: Api, length: int) -> None:
    answer = api.post("/v1/infer", body=bytes(length), content_type=RAW)
    assert "3072" in answer.error(400, "invalid_input")["error"]


def test_an_empty_batch_is_refused(api: Api, npy: Encode) -> None:
    body = npy(np.zeros((0, 32, 32, 3), np.uint8))
    answer = api.post("/v1/infer", body=body, content_type=NPY)
    assert "empty" in answer.error(400, "invalid_input")["error"]


def test_one_wrong_sample_of_a_batch_refuses_the_batch(api: Api, images: Image8) -> None:
    batch = [images[0].tolist(), images[1][:16].tolist()]
    api.as_json({"input": batch}).error(400, "invalid_input")


# --- encoded files


def _pickled(npy: Encode) -> bytes:
    return npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((32, 32, 3), np.uint8))
    return buffer.getvalue()


def _boastful_npy(samples: int) -> bytes:
    """An .npy header that claims far more than follows."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": (samples, 32, 32, 3)}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(100)


def test_a_pickled_npy_is_refused_and_not_run(api: Api, npy: Encode) -> None:
    for body in (_pickled(npy), pickle.dumps([1, 2, 3])):
        error = api.post("/v1/infer", body=body, content_type=NPY).error(400, "invalid_input")
        assert error["field"] == "input"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"not numpy at all",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1', ",
        b"\x93NUMPY\x01\x00\x08\x00((((((((",
        _npz(),
        _boastful_npy(2),
        _boastful_npy(10**6),
        _boastful_npy(10**15),
        _boastful_npy(10**30),
        _boastful_npy(-1),
    ],
    ids=lambda body: f"{len(body)}-{zlib.crc32(body):x}",
)
def test_a_damaged_npy_is_refused(api: Api, body: bytes) -> None:
    answer = api.post("/v1/infer", body=body, content_type=NPY)
    assert answer.error(400, "invalid_input")["field"] == "input"


@pytest.mark.parametrize("media_type", [PNG, JPEG])
def test_a_truncated_image_is_refused(
    api: Api, image: Image8, png: Encode, jpeg: Encode, media_type: str
) -> None:
    whole = (png if media_type == PNG else jpeg)(image)
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 30):
        answer = api.post("/v1/infer", body=whole[:length], content_type=media_type)
        assert answer.error(400, "invalid_input")["field"] == "input"


@pytest.mark.parametrize("media_type", [PNG, JPEG, NPY])
def test_a_corrupt_file_never_breaks_the_daemon(
    api: Api, image: Image8, png: Encode, jpeg: Encode, npy: Encode, media_type: str
) -> None:
    """200 where the damage does not show, else a 400 or 413 in the usual form."""
    whole = {PNG: png, JPEG: jpeg, NPY: npy}[media_type](image)
    generator = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(whole)
        for position in generator.integers(0, min(len(whole), 700), 4):
            damaged[position] = generator.integers(0, 256)
        answer = api.post("/v1/infer", body=bytes(damaged), content_type=media_type)
        if answer.status != 200:
            assert answer.status in (400, 413), answer.body
            assert answer.json()["field"] == "input"


def test_an_image_under_the_wrong_content_type_is_refused(
    api: Api, image: Image8, png: Encode
) -> None:
    answer = api.post("/v1/infer", body=png(image), content_type=JPEG)
    assert "JPEG" in answer.error(400, "invalid_input")["error"]


def _bomb(side: int) -> bytes:
    """A white one-bit PNG of ``side`` x ``side`` pixels, which packs to almost nothing."""

    def chunk(kind: bytes, contents: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + contents))
        return struct.pack(">I", len(contents)) + kind + contents + check

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [12_000, 30_000])
def test_a_decompression_bomb_is_refused_unopened(api: Api, side: int) -> None:
    answer = api.post("/v1/infer", body=_bomb(side), content_type=PNG)
    error = answer.error(413, "too_large")
    assert error["field"] == "input"
    assert "pixels" in error["error"]


# --- bounds


@pytest.mark.parametrize("field", ["max_latency_ms", "min_accuracy", "max_energy_mj"])
@pytest.mark.parametrize(
    "value", ["20", True, [20], {"a": 1}, float("nan"), float("inf"), -float("inf"), -0.1, 10**400]
)
def test_a_wrong_bound_is_refused_by_name(api: Api, image: Image8, field: str, value: Any) -> None:
    for path, body in (("/v1/infer", {"input": image.tolist()}), ("/v1/plan", {})):
        error = api.as_json({**body, field: value}, path).error(400, "invalid_input")
        assert error["field"] == field
        assert field in error["error"]


@pytest.mark.parametrize("field", ["max_latency_ms", "min_accuracy", "max_energy_mj"])
@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-inf", "-1", "", "abc", "true", "1e999", "9" * 400, "1_0", "\u0663"],
)
def test_a_wrong_bound_in_the_query_is_refused_by_name(
    api: Api, image: Image8, field: str, value: str
) -> None:
    for answer in (api.raw(image, **{field: value}), api.post("/v1/plan", query={field: value})):
        assert answer.error(400, "invalid_input")["field"] == field


@pytest.mark.parametrize("field", ["max_latency_ms", "max_energy_mj"])
def test_a_cap_of_zero_is_refused(api: Api, image: Image8, field: str) -> None:
    assert api.raw(image, **{field: 0}).error(400, "invalid_input")["field"] == field


def test_an_accuracy_of_90_is_told_to_be_0_9(api: Api, image: Image8) -> None:
    error = api.raw(image, min_accuracy=90).error(400, "invalid_input")
    assert error["field"] == "min_accuracy"
    assert "0.9 " in error["error"]


@pytest.mark.parametrize("field", ["priority", "top_k"])
@pytest.mark.parametrize("value", ["3", True, [3], 10**400])
def test_a_wrong_number_of_an_option_is_refused(
    api: Api, image: Image8, field: str, value: Any
) -> None:
    body = {"input": image.tolist(), field: value}
    assert api.as_json(body).error(400, "invalid_input")["field"] == field


# --- fields


def test_an_unknown_field_is_named_with_those_that_are_known(api: Api, image: Image8) -> None:
    in_query = api.raw(image, max_latency=20).error(400, "unknown_field")
    in_body = api.as_json({"input": image.tolist(), "max_latency": 20}).error(400, "unknown_field")
    for error in (in_query, in_body):
        assert error["field"] == "max_latency"
        assert "max_latency_ms" in error["error"]


@pytest.mark.parametrize("verb", ["plan", "load", "unload"])
def test_the_other_addresses_refuse_unknown_fields_too(api: Api, verb: str) -> None:
    path = f"/v1/models/second/{verb}"
    assert api.as_json({"speed": 1}, path).error(400, "unknown_field")["field"] == "speed"
    assert api.post(path, query={"speed": 1}).error(400, "unknown_field")["field"] == "speed"


def test_a_field_given_twice_is_refused(api: Api, image: Image8) -> None:
    query = [("max_latency_ms", 20), ("max_latency_ms", 30)]
    answer = api.post("/v1/infer", body=image.tobytes(), content_type=RAW, query=query)
    assert answer.error(400, "invalid_input")["field"] == "max_latency_ms"
    assert api.post("/v1/plan", query=query).error(400, "invalid_input")["field"] == query[0][0]


@pytest.mark.parametrize("path", ["/v1/infer", "/v1/plan"])
def test_a_field_in_body_and_query_is_refused(api: Api, image: Image8, path: str) -> None:
    document: dict[str, Any] = {"input": image.tolist()} if path == "/v1/infer" else {}
    body = json.dumps({**document, "min_accuracy": 0.5}).encode()
    answer = api.post(path, body=body, content_type="application/json", query={"min_accuracy": 0.6})
    assert answer.error(400, "invalid_input")["field"] == "min_accuracy"


def test_a_field_twice_in_one_json_object_is_refused(api: Api, image: Image8) -> None:
    body = f'{{"input": {image.tolist()}, "min_accuracy": 0.5, "min_accuracy": 0.9}}'.encode()
    answer = api.post("/v1/infer", body=body, content_type="application/json")
    assert answer.error(400, "invalid_input")["field"] == "min_accuracy"


# --- JSON


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"input": [1,',
        b"\xff\xfe\x00",
        b'{"input": \xff}',
        b"[1, 2, 3]",
        b'"text"',
        b"null",
        b"17",
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}",
        b'{"a": ' * 50_000,
        b'{"min_accuracy": ' + b"1" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:16]) + str(len(body)),
)
def test_a_body_that_is_no_request_is_refused(api: Api, body: bytes) -> None:
    answer = api.post("/v1/infer", body=body, content_type="application/json")
    answer.error(400, "invalid_input")


@pytest.mark.parametrize("body", [b"[]", b"17", b"{", b"null"])
def test_a_plan_needs_an_object(api: Api, body: bytes) -> None:
    api.post("/v1/plan", body=body, content_type="application/json").error(400, "invalid_input")


# --- addresses, methods, media types


@pytest.mark.parametrize("verb", ["infer", "plan", "load", "unload"])
@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "a%00b", "x" * 300, "%C3%A9"])
def test_an_unknown_model_is_not_found(api: Api, image: Image8, verb: str, name: str) -> None:
    body = image.tobytes() if verb == "infer" else None
    content_type = RAW if verb == "infer" else None
    answer = api.post(f"/v1/models/{name}/{verb}", body=body, content_type=content_type)
    error = answer.error(404, "model_not_found")
    assert "cifar10-resnet" in error["error"]


def test_an_unknown_model_is_not_found_by_get(api: Api) -> None:
    api.get("/v1/models/nothing").error(404, "model_not_found")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/models/cifar10-resnet/fly", "/v1/infer/", "/v1//models"]
)
def test_an_unknown_address_is_not_found(api: Api, path: str) -> None:
    assert path in api.get(path).error(404, "not_found")["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/cifar10-resnet", "/v1/power", "/metrics"]
)
def test_addresses_that_are_read_refuse_unknown_fields_too(api: Api, path: str) -> None:
    assert api.get(path, query={"fields": "name"}).error(400, "unknown_field")["field"] == "fields"


@pytest.mark.parametrize(
    ("method", "path", "offered"),
    [
        ("GET", "/v1/infer", "OPTIONS, POST"),
        ("PUT", "/v1/plan", "OPTIONS, POST"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/events", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_refused_with_those_that_are_offered(
    api: Api, method: str, path: str, offered: str
) -> None:
    answer = api.request(method, path)
    error = answer.error(405, "method_not_allowed")["error"]
    assert method in error and offered in error
    assert answer.headers["Allow"] == offered


@pytest.mark.parametrize("path", ["/v1/events", "/v1/memory"])
def test_options_of_an_address_are_its_methods(api: Api, path: str) -> None:
    answer = api.request("OPTIONS", path)
    assert answer.status == 200 and answer.body == b""
    assert sorted(answer.headers["Allow"].split(", ")) == ["GET", "HEAD", "OPTIONS"]


@pytest.mark.parametrize(
    "media_type", [None, "text/html", "image/avif", "multipart/form-data", ";"]
)
def test_an_unknown_media_type_lists_the_known(
    api: Api, image: Image8, media_type: str | None
) -> None:
    answer = api.post("/v1/infer", body=image.tobytes(), content_type=media_type)
    error = answer.error(415, "unsupported_media_type")
    for known in (RAW, NPY, PNG, JPEG, "audio/wav", "text/plain", "application/json"):
        assert known in error["error"]


# --- bodies that are too large, cut short, or come in pieces


def test_an_announced_2_gb_is_refused_before_it_is_sent(daemon: Daemon) -> None:
    head = (
        f"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\n"
        "Content-Length: 2147483648\r\n\r\n"
    )
    with daemon.api.socket() as connection:
        connection.sendall(head.encode())
        error = _error_of(_read_answer(connection), 413, "too_large")
    assert "2147483648" in error["error"]


@pytest.mark.parametrize("path", ["/v1/infer", "/v1/plan", "/v1/models/second/load", "/healthz"])
def test_a_body_over_the_limit_is_refused_everywhere(api: Api, path: str) -> None:
    method = "GET" if path == "/healthz" else "POST"
    answer = api.request(method, path, headers={"Content-Length": "1000001"})
    answer.error(413, "too_large")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_just_the_limit_is_taken_and_a_byte_more_is_not(
    daemon: Daemon, image: Image8, is_chunked: bool
) -> None:
    document = json.dumps({"input": image.tolist()}).encode()
    for length, status in ((999_999, b"200"), (1_000_000, b"200"), (1_000_001, b"413")):
        body = document.ljust(length)
        how = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {length}"
        head = f"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{how}\r\n"
        with daemon.api.socket() as connection:
            sent = _chunked(body, 100_000) if is_chunked else body
            connection.sendall(f"{head}\r\n".encode() + sent)
            assert _read_answer(connection).split()[1] == status, length


def test_a_body_over_the_limit_that_is_sent_gets_its_answer(api: Api) -> None:
    answer = api.post("/v1/infer", body=bytes(1_000_001), content_type=RAW)
    assert "1000000" in answer.error(413, "too_large")["error"]


def _chunked(body: bytes, piece: int) -> bytes:
    parts = [body[i : i + piece] for i in range(0, len(body), piece)]
    return b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in parts) + b"0\r\n\r\n"


_CHUNKED_HEAD = (
    f"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
).encode()


@pytest.mark.parametrize("piece", [1, 1000, 3072])
def test_a_chunked_body_is_read_whole(daemon: Daemon, image: Image8, piece: int) -> None:
    with daemon.api.socket() as connection:
        for _ in range(2):
            connection.sendall(_CHUNKED_HEAD + _chunked(image.tobytes(), piece))
            received = _read_answer(connection)
            assert received.startswith(b"HTTP/1.1 200"), received[:300]


def test_a_chunked_body_over_the_limit_is_refused(daemon: Daemon) -> None:
    with daemon.api.socket() as connection:
        connection.sendall(_CHUNKED_HEAD + _chunked(bytes(1_000_100), 50_000))
        _error_of(_read_answer(connection), 413, "too_large")


@pytest.mark.parametrize("is_one_chunk", [False, True])
def test_an_endless_chunked_body_is_refused(daemon: Daemon, is_one_chunk: bool) -> None:
    chunk = _chunked(bytes(65536), 65536).removesuffix(b"0\r\n\r\n")
    start = b""
    if is_one_chunk:
        start, chunk = b"ffffffff\r\n", bytes(65536)
    with daemon.api.socket() as connection:
        try:
            connection.sendall(_CHUNKED_HEAD + start)
            for _ in range(1000):
                connection.sendall(chunk)
        except OSError:
            return
    raise AssertionError("64 MB were taken, of a body of at most 1 MB")


@pytest.mark.parametrize(
    "body", [b"zz\r\nab\r\n0\r\n\r\n", b"-5\r\nab\r\n0\r\n\r\n", b"3\r\nabcdef\r\n"]
)
def test_wrong_chunks_are_refused(daemon: Daemon, body: bytes) -> None:
    with daemon.api.socket() as connection:
        connection.sendall(_CHUNKED_HEAD + body)
        with suppress(OSError):  # the daemon may have hung up already
            connection.shutdown(socket.SHUT_WR)
        received = _read_answer(connection)
    assert received.startswith(b"HTTP/1.1 400"), received[:300]


@pytest.mark.parametrize("sent", [0, 1, 3071])
def test_a_body_that_ends_too_early_is_refused(daemon: Daemon, image: Image8, sent: int) -> None:
    head = (
        f"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\nContent-Length: 3072\r\n\r\n"
    )
    with daemon.api.socket() as connection:
        connection.sendall(head.encode() + image.tobytes()[:sent])
        connection.shutdown(socket.SHUT_WR)
        error = _error_of(_read_answer(connection), 400, "invalid_input")
    assert f"{sent} of 3072" in error["error"]


# --- what is not even HTTP, and clients that go


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"HELO mail\r\n\r\n",
        b"POST /v1/infer HTTP/9.9\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"x" * 600_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(range(256)) * 20,
    ],
    ids=lambda garbage: repr(garbage[:24]) + str(len(garbage)),
)
def test_garbage_gets_an_error_or_nothing(daemon: Daemon, garbage: bytes) -> None:
    with daemon.api.socket() as connection:
        received = b""
        with suppress(OSError):  # the daemon may have hung up already
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            received = _read_answer(connection)
    assert not received or received.split(b" ")[1][:1] in (b"4", b"5"), received[:300]


def test_clients_that_leave_at_once_leave_nothing_behind(
    daemon: Daemon,
    api: Api,
    images: Image8,
    until: Callable[..., Any],
    metric: Callable[..., float],
) -> None:
    """Cut off in the head, in the body, and after it: then no job is left, or unload refuses."""
    assert api.post("/v1/models/second/load").status == 200
    batch = np.concatenate([images] * 2).tobytes()
    head = (
        f"POST /v1/models/second/infer HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\n"
        f"Content-Length: {len(batch)}\r\n\r\n"
    ).encode()

    def leave(number: int) -> None:
        with daemon.api.socket() as connection:
            sent = head + batch
            connection.sendall(sent[: (20, len(head) + 1000, len(sent), len(sent))[number % 4]])
            if number % 2:
                reset = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    threads = [threading.Thread(target=leave, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: metric(api, "delen_jobs") == 0, "no job left")
    until(
        lambda: api.post("/v1/models/second/unload").status == 200,
        "the second model unloaded, which it is only when no job of it is left",
    )
    assert metric(api, "delen_policy_failures_total") == 0
    assert metric(api, "delen_dispatch_failures_total") == 0
    assert metric(api, "delen_errors_total", code="internal") == 0
    assert metric(api, "delen_errors_total", code="backend_failed") == 0
