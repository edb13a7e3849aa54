"""Requests and answers as bytes."""

from __future__ import annotations

from typing import Any

import pytest

from delen.errors import DelenError, InvalidInput, TooLarge
from delen.sdk.http import Answer, AnswerReader, Endpoint, Request, Unanswered

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\n\r\n"


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("sent", "answer", "keeps"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", Answer(200, b"abc"), True),
        (OK + b"content-length:0\r\nConnection: Close\r\n\r\n", Answer(200, b""), False),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\nx", Answer(404, b"x"), False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, Answer(200, b"abcdef"), True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
            Answer(200, b"a"),
            True,
        ),
    ],
)
def test_an_answer_is_read_in_whatever_pieces_it_comes(
    sent: bytes, answer: Answer, keeps: bool, step: int
) -> None:
    reader = AnswerReader()
    for begin in range(0, len(sent), step):
        assert reader.answer is None
        reader.feed(sent[begin : begin + step])
    assert (reader.answer, reader.keeps) == (answer, keeps)


def test_without_a_length_an_answer_ends_with_its_connection() -> None:
    reader = AnswerReader()
    reader.feed(OK + b"\r\nabc")
    assert reader.answer is None
    reader.feed(b"")
    assert (reader.answer, reader.keeps) == (Answer(200, b"abc"), False)


@pytest.mark.parametrize("begun", [b"", OK, OK + b"Content-Length: 3\r\n\r\nab"])
def test_an_answer_that_is_cut_off_is_none(begun: bytes) -> None:
    reader = AnswerReader()
    if begun:
        reader.feed(begun)
    with pytest.raises(Unanswered) as cut:
        reader.feed(b"")
    assert cut.value.has_begun == bool(begun)


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"a" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(sent: bytes) -> None:
    with pytest.raises(DelenError, match="not an HTTP answer"):
        AnswerReader().feed(sent)


def test_what_follows_an_answer_ends_the_use_of_its_connection() -> None:
    reader = AnswerReader()
    reader.feed(OK + b"Content-Length: 1\r\n\r\nab")
    assert (reader.answer, reader.keeps) == (Answer(200, b"a"), False)


def test_a_request_names_its_host_and_carries_the_token() -> None:
    endpoint = Endpoint.of("http://[::1]:9/delen/", "sesame")
    request = Request("POST", "/v1/plan?a=1", (b"{", b"}"), "application/json")
    head = endpoint.head(request)
    assert head == (
        b"POST /delen/v1/plan?a=1 HTTP/1.1\r\nHost: [::1]:9\r\nAuthorization: Bearer sesame\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    )
    assert (endpoint.host, endpoint.port, endpoint.socket) == ("::1", 9, None)
    assert Endpoint.of("unix:///run/d.sock", None).socket == "/run/d.sock"


def test_a_body_in_memory_is_named_and_not_sent() -> None:
    endpoint = Endpoint.of("unix:///run/d.sock", None)
    head = endpoint.head(Request("POST", "/", (b"ab", b"c"), "image/png"), in_memory=True)
    assert head == (
        b"POST / HTTP/1.1\r\nHost: delen\r\nContent-Type: image/png\r\n"
        b"Delen-Shared-Memory: 0+3\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "ftp://a", "http://a:b", "a:8000", "http://[::1", "http://me:word@a",
        "http://a?b", "http://a#b",
    ],
)  # fmt: skip
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Endpoint.of(url, None)
    assert refused.value.field == "url"


@pytest.mark.parametrize("url", ["http://a", "https://a", "unix:///run/d.sock"])
def test_certificates_that_cannot_be_used_are_refused(url: str) -> None:
    for ca_file in [5] if url == "https://a" else [5, "ca.pem"]:
        with pytest.raises(InvalidInput) as refused:
            Endpoint.of(url, None, ca_file)  # type: ignore[arg-type]
        assert refused.value.field == "ca_file"


def test_the_variable_of_certificates_is_for_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEN_CA_FILE", "absent")
    assert Endpoint.of("http://a", None).tls is None


@pytest.mark.parametrize("token", ["a\r\nX: y", "ö", "a\tb", "", 5])
def test_a_token_that_no_header_can_have_is_refused(token: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        Endpoint.of("http://a", token)
    assert refused.value.field == "token"


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Content-Length: 9\r\n\r\n",
        OK + b"\r\n" + 9 * b"a",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * b"3\r\nabc\r\n",
    ],
)
def test_an_answer_that_is_too_large_is_not_read_to_its_end(sent: bytes) -> None:
    with pytest.raises(TooLarge):
        AnswerReader(largest=8).feed(sent)
