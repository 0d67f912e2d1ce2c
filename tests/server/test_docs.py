"""docs/http.md holds: its examples are run in their order, and its tables are complete."""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from hector.config import ServerSection
from hector.domain.errors import ModelError
from hector.domain.turns import Reason
from hector.server.http.app import build_app
from hector.server.statuses import STATUSES
from tests.server.site import open_scripted

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
EXAMPLE = re.compile(
    r"```bash\n(?P<commands>.*?)```(?:\n\n```(?P<kind>json|text)\n(?P<output>.*?)```)?", re.DOTALL
)


_AGENT_PATH = "/agents/{agent}"


async def test_the_examples_do_what_the_page_says() -> None:
    runtime, _ = await open_scripted(names={"assistant": ("Assistant", "does what it is told")})
    app = build_app(runtime, ServerSection(), loopback=True)
    examples = list(EXAMPLE.finditer(PAGE))
    assert len(examples) >= 9
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        for example in examples:
            answer = httpx.Response(0)
            for command in example["commands"].replace("\\\n", " ").split("\ncurl "):
                answer = await client.send(_request(client, command))
            match example["kind"]:
                case "json":
                    _compare(json.loads(example["output"]), answer.json(), example["commands"])
                case "text":
                    pattern = ".*?".join(map(re.escape, example["output"].strip().split("...")))
                    assert re.fullmatch(pattern, answer.text.strip()), answer.text
                case _:
                    assert answer.is_success
    await runtime.close()


@pytest.mark.parametrize("status", STATUSES.values(), ids=lambda status: status.code)
def test_each_error_is_in_the_table(status: Any) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {status.http} |")]
    assert any(f"`{status.code}`" in row for row in rows)


def _reasons() -> set[str]:
    own = {value for name, value in vars(Reason).items() if name.isupper()}
    kinds = [ModelError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return own | {kind.reason for kind in kinds}


@pytest.mark.parametrize("reason", sorted(_reasons() - {Reason.WAITING_FOR_INPUT, Reason.SUPERSEDED}))
def test_each_reason_of_a_turn_without_an_answer_is_in_the_table(reason: str) -> None:
    assert re.search(rf"^\| (failed|canceled) \| `{reason}` \| (yes|no) \|", PAGE, re.MULTILINE)


async def test_each_path_is_in_the_table() -> None:
    runtime, _ = await open_scripted()
    app = build_app(runtime, ServerSection(), loopback=True)
    await runtime.close()
    formats = {route.path_format for route in app._routes}
    for route in app._routes:
        if _AGENT_PATH + route.path_format.rstrip("/") in formats:
            continue  # the default agent's, of which one sentence tells
        path = route.path_format.replace("{task}", "{id}").replace("{session}", "{id}")
        path = f"/v1{path}" if path.startswith("/agents") else path
        for method in (route.methods or set()) - {"HEAD"}:
            assert f"| `{method} {path}` |" in PAGE


def _request(client: httpx.AsyncClient, command: str) -> httpx.Request:
    """Reads a curl command, so that the tests need no curl."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("url")
    words = shlex.split(command.removeprefix("curl "))
    given = parser.parse_args(words)
    headers = dict(header.split(": ", 1) for header in given.headers)
    method = given.method or ("POST" if given.data else "GET")
    return client.build_request(method, given.url, headers=headers, content=given.data)


def _compare(expected: Any, found: Any, where: str) -> None:
    """`...` in the page stands for anything, and at the end of a text for its rest."""
    if isinstance(expected, dict) and isinstance(found, dict):
        assert expected.keys() == found.keys(), where
        for key, value in expected.items():
            _compare(value, found[key], f"{where}: {key}")
    elif isinstance(expected, list) and isinstance(found, list):
        assert len(expected) == len(found), where
        for one, other in zip(expected, found, strict=True):
            _compare(one, other, where)
    elif isinstance(expected, str) and expected.endswith("..."):
        assert str(found).startswith(expected.removesuffix("...")), where
    else:
        assert found == expected, where
