"""Requests that nobody would write, made from the OpenAPI document: no 5xx, and no answer that is not documented.

One test asks each operation by itself, the other strings them together, each step with what the last ones answered.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.client import Document
from tests.rows import add_influencer
from tests.service import FakeModel, Service, token

# For one database; the suite has two.
SECONDS = 45.0
ROUND = 4  # requests between two looks at the clock
STEPS = 15  # of one sequence
# With these made up it is no HTTP request any more: the parser answers 400 before any route.
FRAMING = {"content-length", "transfer-encoding"}
# Where CI is set, Hypothesis makes the same examples each time: every round would be the first one again.
OTHERS_EACH_ROUND: dict[str, Any] = {
    "max_examples": ROUND,
    "database": None,
    "derandomize": False,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
SEQUENCE_SECONDS = 30.0
# Chance leads a sequence: half a minute comes to LED_TO some six times, and on a slow machine once in a while not at
# all. It has the time for 25, then.
REACH_SECONDS = 120.0
LED_TO = "GET /api/v1/chat/conversations/{conversation_id}/messages"
# The first is about our own failures.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class Person:
    """Somebody with a conversation, and a session that is theirs."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.influencer_id = add_influencer(service, initial_greeting="Hello")
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token(f'fuzz-{uuid.uuid4()}')}"

    def known_ids(self) -> dict[str, str]:
        """Ids that exist, by the name of their path parameter; the conversation is opened if it was deleted."""
        answer = self.session.post(
            f"{self.service.url}/api/v1/chat/conversations", json={"influencer_id": self.influencer_id}, timeout=30
        )
        conversation = answer.json()
        return {
            "conversation_id": conversation["id"],
            "message_id": conversation["recent_messages"][0]["id"],
            "influencer_id": self.influencer_id,
        }


@pytest.fixture
def person(service: Service, model: FakeModel) -> Iterator[Person]:
    # What is asked for as JSON gets some: a model that cannot be used is a 503, and no fault of the route.
    refusal = {"pieces": ['{"is_valid": false, "reason": "No."}']}
    model.tell(default={"pieces": ["Yes"]}, kinds={"structured": refusal})
    somebody = Person(service)
    yield somebody
    somebody.session.close()


@pytest.mark.long
@pytest.mark.timeout(180)
def test_made_up_requests_get_documented_answers(service: Service, document: Document, person: Person) -> None:
    schema = schemathesis.openapi.from_dict(document.document)
    operations = list(schema.get_all_operations())
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    share = SECONDS / (len(operations) * len(modes))
    sent = 0
    for found in operations:
        assert isinstance(found, Ok), found
        for mode in modes:
            sent += fuzz(found.ok(), mode, person, time.monotonic() + share)
    assert sent > 2 * ROUND * len(operations) - ROUND * 10, "most operations have input that can be wrong"
    assert httpx2.get(f"{service.url}/health").json()["status"] == "healthy"


def fuzz(
    operation: "schemathesis.APIOperation[Any, Any, Any, Any]", mode: GenerationMode, person: Person, until: float
) -> int:
    """Sends requests of one operation until the time is up; returns how many."""
    sent = 0
    if mode is GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
        return 0  # what has no input cannot be asked wrongly
    if mode is GenerationMode.NEGATIVE and any(body.media_type.startswith("multipart/") for body in operation.body):
        return 0  # schemathesis makes no wrong forms; tests/api/test_media_upload.py does
    strategy = operation.as_strategy(generation_mode=mode)
    known = person.known_ids()

    @settings(**OTHERS_EACH_ROUND)
    @given(case=strategy, is_known=st.booleans())
    def ask(case: "schemathesis.Case[Any]", is_known: bool) -> None:
        nonlocal sent
        keep_framing(case)
        if is_known and case.path_parameters:
            case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
        response = case.call(base_url=person.service.url, session=person.session, timeout=40)
        check(response, case)
        sent += 1

    try:
        ask()
        while time.monotonic() < until or sent < ROUND:
            ask()
    except Unsatisfiable:  # texts only, and every text is one: it cannot be asked wrongly
        assert mode is GenerationMode.NEGATIVE, operation.label
    return sent


@pytest.mark.long
@pytest.mark.timeout(240)
def test_made_up_sequences_get_documented_answers(service: Service, document: Document, person: Person) -> None:
    answered: Counter[str] = Counter()
    machine = schemathesis.openapi.from_dict(document.document).as_state_machine()

    class Sequence(machine):  # type: ignore[misc, valid-type]  # a class made from the document
        def before_call(self, case: "schemathesis.Case[Any]") -> None:
            keep_framing(case)
            # What a sequence begins with: nobody guesses the id of a persona.
            if isinstance(case.body, dict) and "influencer_id" in case.body:
                case.body["influencer_id"] = person.influencer_id

        def get_call_kwargs(self, case: "schemathesis.Case[Any]") -> dict[str, Any]:
            return {"base_url": service.url, "session": person.session, "timeout": 40}

        def validate_response(self, response: Response, case: "schemathesis.Case[Any]", **_: Any) -> None:
            check(response, case)
            if response.status_code < 300:
                answered[case.operation.label] += 1

    begun = time.monotonic()
    while (spent := time.monotonic() - begun) < SEQUENCE_SECONDS or (not answered[LED_TO] and spent < REACH_SECONDS):
        Sequence.run(settings=settings(**OTHERS_EACH_ROUND, stateful_step_count=STEPS))
    # It came to where only an id leads that was answered before.
    assert answered[LED_TO], answered
    assert httpx2.get(f"{service.url}/health").json()["status"] == "healthy"


def keep_framing(case: "schemathesis.Case[Any]") -> None:
    for name in [name for name in case.headers or {} if name.lower() in FRAMING]:
        del case.headers[name]


def check(response: Response, case: "schemathesis.Case[Any]") -> None:
    """Raises when the answer is not one that the document has, or a failure of ours."""
    # A vendor's answer that cannot be used is no fault of the route.
    is_vendors = response.status_code == 503 and response.json()["error"] == "ai_unavailable"
    case.validate_response(response, checks=CHECKS[1:] if is_vendors else CHECKS)
