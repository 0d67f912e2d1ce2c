"""Schemathesis asks what the OpenAPI document allows, and what it does not, of what there is and is not."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.fuzz.bounds import LENGTHS, bounded
from tests.server.fuzz.target import Target, check_details
from tests.server.site import BOB, bearer

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def document(target: Target) -> Any:
    return target.http.get("/openapi.json").json()


def operations(document: Any) -> Iterator[Any]:
    each: Any
    for each in schemathesis.openapi.from_dict(document).get_all_operations():
        yield each.ok()


def in_place(ids: Mapping[str, str]) -> st.SearchStrategy[Mapping[str, str]]:
    """What stands in a path in the place of what Schemathesis made up: it cannot know what there is."""
    names = {"agent": ["a", "a", "b"], "task": ["task"], "session": ["context"], "config": ["configuration"]}
    known = {
        name: kinds if name == "agent" else [ids[f"{kinds[0]} of {user}"] for user in ("alice", "bob", "bob")]
        for name, kinds in names.items()
    }
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in known.items()})


@LENGTHS
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_whatever_is_asked_is_answered_as_the_document_says(
    target: Target, document: Any, mode: GenerationMode, long: bool
) -> None:
    asked = set()
    for operation in operations(document):

        @bounded(4, long=long)
        @given(operation.as_strategy(generation_mode=mode), in_place(target.ids), st.booleans())
        def tried(case: Any, known: Mapping[str, str], signed_in: bool) -> None:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = known.get(name, case.path_parameters[name])
            headers = bearer(BOB) if signed_in or mode is GenerationMode.POSITIVE else {}
            answer = case.call(base_url=str(target.http.base_url), headers=headers, timeout=10)
            case.validate_response(answer, checks=CHECKS)
            check(target, answer)
            asked.add(case.operation.label)

        try:
            tried()
        except Unsatisfiable:  # there is nothing that the document does not allow
            assert mode is GenerationMode.NEGATIVE
        target.check_alive()
    assert len(asked) > 30


def check(target: Target, answer: Any) -> None:
    seen = httpx.Response(answer.status_code, content=answer.content)
    target.check_answer(seen)
    if seen.status_code >= 400:
        error = seen.json()["error"]
        details = error.get("details") or error["data"]  # of JSON-RPC
        check_details(details, error.get("status"), "INVALID_ARGUMENT")
