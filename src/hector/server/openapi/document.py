"""The OpenAPI document, put together from the routes that are served."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from starlette.routing import Route

from hector.server.openapi.derived import derive, reference
from hector.server.openapi.operations import (
    A2A,
    A2A_JSON,
    EVENTS,
    HEADERS,
    JSON,
    OWN,
    PARAMETERS,
    Answer,
)
from hector.server.openapi.own import SCHEMAS

_AGENT = "/agents/{agent}"
_DESCRIPTIONS = {
    "config": "the id of a push notification configuration",
    "agent": "an agent",
    "session": "a session's id",
    "task": "a task's id",
}


def document(routes: Iterable[Route], *, base_url: str | None, signs_in: bool) -> dict[str, Any]:
    """Raises `KeyError` for a route that nobody has described."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            written = (
                f"/v1{route.path_format}" if route.path_format.startswith("/agents") else route.path_format
            )
            item = _operation(method, route, signs_in=signs_in)
            paths.setdefault(written, {})[method.lower()] = item
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Hector",
            "version": version("hector"),
            "description": "AI agents over the A2A protocol, versions 1.0 and 0.3, and their sessions.",
        },
        "servers": [{"url": base_url or "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(paths),
            "parameters": {key: {"name": key} | dict(value) for key, value in PARAMETERS.items()},
            "headers": {key: dict(value) for key, value in HEADERS.items()},
            "responses": {"Error": {"description": "what is wrong", "content": _content(["Error"])}},
        },
    }
    if signs_in:
        described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"bearer": []}]
    return described


def _operation(method: str, route: Route, *, signs_in: bool) -> dict[str, Any]:
    path = route.path_format
    at_root = not path.startswith(_AGENT)
    below = path.removeprefix(_AGENT).removesuffix("/") if path != "/" else ""
    found = OWN.get((method, path)) or A2A[method, below]
    is_a2a = (method, path) not in OWN
    query = [*found.query]
    if is_a2a and at_root:
        query.append("name" if found.id == "getAgentCard" else "tenant")
    made: dict[str, Any] = {
        "operationId": f"{found.id}AtRoot" if is_a2a and at_root else found.id,
        "tags": [found.tag],
        "summary": f"{found.summary} (the default agent)" if is_a2a and at_root else found.summary,
        "parameters": [
            *(_in_path(name) for name in route.param_convertors),
            *({"$ref": f"#/components/parameters/{name}"} for name in (*query, *found.headers)),
        ],
        "responses": {str(status): _answer(answer) for status, answer in found.answers.items()}
        | {"default": {"$ref": "#/components/responses/Error"}},
    }
    if found.id == "call":
        made["responses"]["default"] = {"description": "what is wrong", "content": _content(["RpcAnswer"])}
    if found.body:
        made["requestBody"] = {"required": True, "content": _content(found.body)}
    if found.public and signs_in:
        made["security"] = []
    return made


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _DESCRIPTIONS[name],
        "schema": {"type": "string", "minLength": 1},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        made["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
    content = _content(answer.schemas, [each for each in answer.types if each != EVENTS])
    if EVENTS in answer.types:
        content[EVENTS] = {"schema": _event(answer.streamed)}
    return made | ({"content": content} if content else {})


def _event(names: Sequence[str]) -> dict[str, Any]:
    """One of a stream."""
    data = {"anyOf": [reference(name) for name in (*names, "Error")]}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "for Last-Event-ID"},
            "event": {"enum": ["message", "error"]},
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": data},
        },
        "required": ["data"],
    }


def _content(names: Sequence[str], types: Sequence[str] = (JSON, A2A_JSON)) -> dict[str, Any]:
    if not names:
        return {}
    schema = reference(names[0]) if len(names) == 1 else {"anyOf": [reference(name) for name in names]}
    return {each: {"schema": schema} for each in types}


def _schemas(paths: object) -> dict[str, Any]:
    """All that is mentioned, and what that mentions in turn."""
    found: dict[str, Any] = {}
    wanted = {"Error", *_mentioned(paths)}
    while wanted:
        name = wanted.pop()
        made = {name: SCHEMAS[name]} if name in SCHEMAS else derive(name)
        found |= made
        wanted |= {each for each in _mentioned(made) if each not in found}
    return dict(sorted(found.items()))


def _mentioned(value: object) -> set[str]:
    start = "#/components/schemas/"
    match value:
        case {"$ref": str(target)} if target.startswith(start):
            return {target.removeprefix(start)}
        case dict():
            return {name for each in value.values() for name in _mentioned(each)}
        case list():
            return {name for each in value for name in _mentioned(each)}
        case _:
            return set()
