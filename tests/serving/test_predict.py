"""What /predict answers: as `senthy predict` does, in the order of the texts, with the options of a request."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from sentiment_hybrid.serving import batching
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.model import ServedModel

from .conftest import Stub, ask, predict

TEXTS = ["not bad at all :)", "what a waste of time", "", "the meeting is at noon", "😀", "good " * 900]


@pytest.fixture
def service(make_service: Callable[..., Service], mini: ServedModel) -> Service:
    return make_service(mini)


def test_answers_are_those_of_the_predictor_in_the_order_of_the_texts(service: Service, mini: ServedModel) -> None:
    (response,) = predict(service, {"texts": [*TEXTS, None]})
    answers = response.json()["predictions"]
    wanted = [mini.predictor.predict(text) for text in TEXTS]
    assert [one["label"] for one in answers] == [*(one.label for one in wanted), None]
    assert [one["score"] for one in answers[:2]] == pytest.approx([one.score for one in wanted[:2]], abs=1e-4)
    assert list(answers[0]["probabilities"]) == list(mini.predictor.labels)
    assert answers[2] == {"label": None, "score": None, "probabilities": {}, "truncated": False}
    assert response.json()["model"] == mini.id


def test_one_text_needs_no_list(service: Service) -> None:
    one, several = predict(service, {"texts": TEXTS[0]}, {"texts": TEXTS[:1]})
    assert one.json() == several.json()


def test_labels_are_chosen_among_and_unsure_answers_are_withheld(service: Service) -> None:
    asked = {"texts": TEXTS[:2], "labels": ["positive", "Negative"], "abstain_below": 0.999999}
    (response,) = predict(service, asked)
    for answer in response.json()["predictions"]:
        assert answer["label"] == "unsure"
        assert answer["score"] == max(answer["probabilities"].values())
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["probabilities"].keys() == {"negative", "positive"}


def test_explanations_mark_the_words_of_the_text(service: Service) -> None:
    (response,) = predict(service, {"texts": [TEXTS[0], ""], "explain": True, "labels": ["negative", "positive"]})
    explained, empty = response.json()["predictions"]
    why = explained["explanation"]
    assert why["label"] == explained["label"] == "positive"
    assert [why["text"][word["start"] : word["end"]] for word in why["words"]] == ["not", "bad", "at", "all", ":)"]
    assert why["words"][0]["weight"] > 0
    assert empty["explanation"] is None


def test_requests_sent_together_are_computed_together_and_answered_apart(make_service: Callable[..., Service]) -> None:
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()
    bodies = [{"texts": ["x" * (number % 10)] * (1 + number % 3)} for number in range(40)]
    texts = sum(len(body["texts"]) for body in bodies)
    found = predict(service, *bodies, waiting=texts, then=stub.gate.set)
    for body, response in zip(bodies, found, strict=True):
        texts = body["texts"]
        positive = [one["probabilities"]["positive"] for one in response.json()["predictions"]]
        assert positive == pytest.approx([len(text) / 10 for text in texts])
    assert len(stub.seen) <= 5


def test_a_large_request_is_computed_in_parts_between_which_small_ones_are_answered(
    make_service: Callable[..., Service],
) -> None:
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()
    large, small = {"texts": ["large " * 60] * 200}, {"texts": ["small"]}
    found = predict(service, large, small, waiting=201, then=stub.gate.set)
    assert [one.status_code for one in found] == [200, 200]
    first = next(at for at, texts in enumerate(stub.seen) if "small" in texts)
    assert len(stub.seen) > 1
    assert sum(map(len, stub.seen[:first])) < 200


def test_explanations_leave_every_second_round_to_other_requests(make_service: Callable[..., Service]) -> None:
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()
    explained = {"texts": ["why", "not"], "explain": True}
    found = predict(
        service, explained, explained, explained, {"texts": ["large " * 60] * 50}, waiting=56, then=stub.gate.set
    )
    assert [one.status_code for one in found] == [200] * 4
    kinds = "".join("e" if texts == "explain" else "l" for texts in stub.seen)
    assert "ee" not in kinds[: kinds.rindex("l")]


def test_a_round_is_short_even_if_very_many_wait(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = itertools.count()  # each round takes a second
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=slow.__next__, monotonic=time.monotonic))
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()
    bodies = [{"texts": ["a text of some length " * 20]}] * 60
    assert {one.status_code for one in predict(service, *bodies, waiting=60, then=stub.gate.set)} == {200}
    assert max(map(len, stub.seen)) < 10


def test_a_text_that_breaks_the_model_fails_its_own_request_only(make_service: Callable[..., Service]) -> None:
    stub = Stub()
    service = make_service(stub)
    stub.gate.clear()
    bodies = [{"texts": ["first"]}, {"texts": ["fine"]}, {"texts": ["poison"]}, {"texts": ["good"]}]
    found = predict(service, *bodies, waiting=4, then=stub.gate.set)
    assert [one.status_code for one in found] == [200, 200, 500, 200]
    assert "Traceback" not in found[2].text


def test_options_that_do_not_suit_the_model_are_refused_beside_requests_that_are_answered(service: Service) -> None:
    bad, single, good = predict(
        service, {"texts": "a", "labels": ["good", "bad"]}, {"texts": "a", "labels": ["positive", "Positive"]},
        {"texts": "a"},
    )  # fmt: skip
    assert (bad.status_code, single.status_code, good.status_code) == (422, 422, 200)
    assert "its labels are negative, neutral, positive" in bad.json()["error"]


def test_models_names_what_answers_and_what_a_request_may_hold(service: Service, mini: ServedModel) -> None:
    (response,) = ask(service, ("GET", "/models", {}))
    (model,) = response.json()["models"]
    assert (model["id"], model["labels"], model["explains"]) == (mini.id, list(mini.predictor.labels), True)
    assert response.json()["limits"]["max_texts"] == service.settings.max_texts


def test_metrics_count_requests_by_path_and_status(service: Service) -> None:
    predict(service, {"texts": ["a", "b"]}, {"texts": 1})
    ask(service, ("GET", "/../../etc/passwd", {}), ("GET", "/health", {}), ("GET", "/ready", {}))
    text = ask(service, ("GET", "/metrics", {}))[0].text
    for line in (
        'senthy_requests_total{path="/predict",status="200"} 1.0',
        'senthy_requests_total{path="/predict",status="422"} 1.0',
        'senthy_requests_total{path="other",status="404"} 1.0',
        "senthy_texts_total 2.0",
        "senthy_waiting_texts 0.0",
    ):
        assert line in text.splitlines()
