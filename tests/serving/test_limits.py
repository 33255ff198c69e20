"""What a service refuses: each bad request gets a status below 500 and one sentence, and the next one is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Serve
from sentiment_hybrid.serving import gate
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.gate import PATHS
from sentiment_hybrid.serving.model import ServedModel

from .conftest import Stub, ask, predict

JSON = {"Content-Type": "application/json"}


def raw(service: Service, content: Any, headers: dict[str, str] | None = None) -> Any:
    return ask(service, ("POST", "/predict", {"content": content, "headers": JSON if headers is None else headers}))[0]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "the body is missing"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"texts": ' + b"9" * 10_000 + b"}", 400, "not JSON"),
        (b"3", 422, "the body should be an object"),
        (b"{}", 422, "texts is missing"),
        (b'{"texts": 3}', 422, "texts should be a string or a list"),
        (b'{"texts": []}', 422, "texts should be a list of 1 or more"),
        (b'{"texts": ["a", 3]}', 422, "texts.1 should be a string"),
        (b'{"texts": [' + b"1," * 1_000_000 + b"1]}", 422, "texts.0 should be a string"),
        (json.dumps(dict.fromkeys(map(str, range(200_000)))).encode(), 422, "200,000 fields"),
        (b'{"texts": "a", "text": "b"}', 422, "text is not a field of a request"),
        (b'{"texts": "a", "explain": "yes"}', 422, "explain should be true or false"),
        (b'{"texts": "a", "abstain_below": NaN}', 422, "abstain_below"),
        (b'{"texts": "a", "abstain_below": 1.5}', 422, "abstain_below should be 1 or less"),
        (b'{"texts": "a", "labels": "positive"}', 422, "labels should be a list"),
        (b'{"texts": "a", "labels": ["positive"]}', 422, "labels should be a list of 2 or more"),
    ],
)
def test_an_invalid_body_gets_an_answer_that_says_what_is_wrong(
    make_service: Callable[..., Service], content: bytes, status: int, said: str
) -> None:
    service = make_service(Stub())
    response = raw(service, content)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert said in response.json()["error"]
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert predict(service, {"texts": "fine"})[0].status_code == 200


def test_a_body_that_is_not_declared_as_json_is_refused(make_service: Callable[..., Service]) -> None:
    response = raw(make_service(Stub()), b'{"texts": "a"}', {"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["hint"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"texts": ["a"] * 10_000}, "10,000 texts in one request; at most 100 are allowed"),
        ({"texts": ["a", "é" * 600]}, "text 2 has 1,200 bytes; at most 1,000 are allowed"),
        ({"texts": "a" * 10_000_000}, "the body is larger than 100,000 bytes"),
        ({"texts": ["a"] * 4, "explain": True}, "4 texts in one request with explanations; at most 3 are allowed"),
        ({"texts": "a" * 60, "explain": True}, "text 1 has 60 bytes; at most 50 are allowed with explanations"),
    ],
    ids=["texts", "text", "body", "explained texts", "explained text"],
)
def test_too_much_for_one_request_is_refused(make_service: Callable[..., Service], body: Any, said: str) -> None:
    limits = {"max_texts": 100, "max_text_bytes": 1000, "max_body_bytes": 100_000}
    service = make_service(Stub(), **limits, max_explained_texts=3, max_explained_bytes=50)
    (response,) = predict(service, body)
    assert response.status_code == 413
    assert said in response.json()["error"]


def test_a_body_of_unknown_length_is_read_up_to_the_limit_only(make_service: Callable[..., Service]) -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            sent.append(1000)
            yield b"x" * 1000

    service = make_service(Stub(), max_body_bytes=5000)
    assert raw(service, endless()).status_code == 413
    assert sum(sent) < 10_000


def test_bodies_that_together_take_too_much_memory_are_refused_for_a_second(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_BODIES", 1.5)
    stub = Stub()
    service = make_service(stub, max_body_bytes=1000)
    stub.gate.clear()
    large = {"texts": "x" * 900}
    found = predict(service, large, large, waiting=1, then=stub.gate.set)
    assert sorted(one.status_code for one in found) == [200, 429]
    assert predict(service, large)[0].status_code == 200


def test_a_body_that_does_not_arrive_is_not_waited_for(make_service: Callable[..., Service]) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"texts":'
        await asyncio.sleep(10)

    response = raw(make_service(Stub(), timeout=0.05), slow())
    assert response.status_code == 408


def test_a_full_queue_refuses_with_a_time_to_come_back_and_answers_what_it_took(
    make_service: Callable[..., Service],
) -> None:
    stub = Stub()
    service = make_service(stub, max_waiting=10, max_texts=10)
    stub.gate.clear()
    bodies = [{"texts": ["a"] * 4}] * 4
    found = predict(service, *bodies, waiting=8, then=stub.gate.set)
    assert sorted(one.status_code for one in found) == [200, 200, 429, 429]
    refused = next(one for one in found if one.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert service.batcher.waiting == 0
    assert predict(service, bodies[0])[0].status_code == 200


def test_a_request_that_takes_too_long_is_given_up_and_computed_no_further(
    make_service: Callable[..., Service],
) -> None:
    stub = Stub()
    service = make_service(stub, timeout=0.05)
    stub.gate.clear()
    late, later = predict(service, {"texts": ["late"]}, {"texts": ["later"]})
    assert {late.status_code, later.status_code} == {503}
    assert late.headers["retry-after"]
    assert service.batcher.waiting == 0
    stub.gate.set()
    assert predict(service, {"texts": ["now"]})[0].status_code == 200
    assert ["later"] not in stub.seen


def test_a_client_that_has_gone_is_not_computed_for(make_service: Callable[..., Service]) -> None:
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()

    async def leave() -> list[Any]:
        sent: list[Any] = []
        body = json.dumps({"texts": ["first"]}).encode()
        told = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}

        async def receive() -> Any:
            return told.pop(0) if len(told) > 1 else told[0]

        async def send(message: Any) -> None:
            sent.append(message)

        await service.application(scope, receive, send)
        return sent

    sent = asyncio.run(leave())
    assert sent[0]["status"] == 499
    assert service.batcher.waiting == 0


def test_a_token_is_asked_for_where_there_is_one(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub(), token="0123456789abcdef")
    assert [one.status_code for one in ask(service, *(("GET", path, {}) for path in ("/", "/health", "/ready")))] == [
        200
    ] * 3
    closed: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", path, {}) for path in ("/models", "/metrics", "/openapi.json")),
        ("POST", "/predict", {}),
    ]
    for response in ask(service, *closed):
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    wrong = {"Authorization": "Bearer 0123456789abcdeF"}
    assert predict(service, {"texts": "a"}, headers=wrong)[0].status_code == 401
    right = {"Authorization": "Bearer 0123456789abcdef"}
    assert predict(service, {"texts": "a"}, headers=right)[0].status_code == 200
    document = ask(service, ("GET", "/openapi.json", {"headers": right}))[0].json()
    assert document["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]", "localhost."])
def test_a_service_without_a_token_answers_for_the_names_of_this_machine(
    make_service: Callable[..., Service], host: str
) -> None:
    assert predict(make_service(Stub()), {"texts": "a"}, headers={"Host": host})[0].status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", ":8000"])
def test_a_service_without_a_token_refuses_other_names_on_every_path(
    make_service: Callable[..., Service], host: str
) -> None:
    service = make_service(Stub(), host="::1")
    asked = [*(("GET", path, {"headers": {"Host": host}}) for path in sorted(PATHS - {"/predict"}))]
    for response in ask(service, *asked, ("POST", "/predict", {"json": {"texts": "a"}, "headers": {"Host": host}})):
        assert response.status_code == 421
        assert "serve.allowed_hosts" in response.json()["hint"]


def test_allowed_hosts_and_the_name_that_is_listened_on_are_answered_for(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub(), host="desk", allowed_hosts="Tweets.example.org")
    hosts = {"tweets.example.org": 200, "tweets.example.org:443": 200, "desk:8000": 200, "example.org": 421}
    for host, status in hosts.items():
        assert predict(service, {"texts": "a"}, headers={"Host": host})[0].status_code == status


def test_an_allowed_host_is_a_name_and_no_url() -> None:
    with pytest.raises(ValueError, match="without http:// and path"):
        Serve(allowed_hosts=("http://tweets.example.org/",))


def test_a_service_with_a_token_answers_for_every_name(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub(), token="0123456789abcdef")
    headers = {"Authorization": "Bearer 0123456789abcdef", "Host": "anything.example"}
    assert predict(service, {"texts": "a"}, headers=headers)[0].status_code == 200


def test_an_id_is_returned_if_it_is_one_and_made_otherwise(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub())
    for sent, kept in (("trace-1", True), ("a b", False), ("x" * 200, False)):
        (response,) = predict(service, {"texts": "a"}, headers={"X-Request-ID": sent})
        assert (response.headers["x-request-id"] == sent) is kept
        assert len(response.headers["x-request-id"]) <= 128


def test_every_response_forbids_scripts_of_others_and_caches(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub())
    paths: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", path, {}) for path in ("/", "/page.js", "/models", "/nothing")
    ]
    for response in ask(service, *paths):
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    service = Service(Stub().served(), Serve())
    service.batcher.start()
    yield service
    service.batcher.close()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("texts", "labels", "abstain_below", "explain", "other")
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5) | VALUES
TEXTS = st.lists(st.text(max_size=30) | st.none(), min_size=1, max_size=5)


@given(st.one_of(BODIES.map(lambda body: json.dumps(body).encode()), st.binary(max_size=100)))
@settings(max_examples=100, deadline=None)
def test_no_body_is_an_error_of_the_server(fuzzed: Service, body: bytes) -> None:
    response = raw(fuzzed, body)
    assert response.status_code < 500
    assert response.status_code == 200 or response.json()["error"]


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_any_texts_are_answered(fuzzed: Service, texts: list[str | None]) -> None:
    (response,) = predict(fuzzed, {"texts": texts})
    assert response.status_code == 200
    assert len(response.json()["predictions"]) == len(texts)


def test_lone_surrogates_in_a_body_are_answered(make_service: Callable[..., Service], mini: ServedModel) -> None:
    response = raw(make_service(mini), b'{"texts": ["bad \\ud83d emoji", "\\ud800"], "explain": true}')
    assert response.status_code == 200
    assert len(response.json()["predictions"]) == 2
