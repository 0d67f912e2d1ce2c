"""The server of examples/conformance.yaml does what the suites' scenarios want of it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conformance.server import served


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("served") / "server.log") as url:
        yield url


def send(url: str, message_id: str, **more: Any) -> Any:
    message = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "Hello from TCK"}]} | more
    answer = httpx.post(f"{url}/message:send", json={"message": message}, headers={"A2A-Version": "1.0"})
    return answer.json()["task"]


@pytest.mark.parametrize(
    ("message_id", "part"),
    [
        ("tck-complete-task-1", {"text": "Hello from TCK"}),
        ("tck-artifact-text-1", {"text": "Generated text content"}),
        ("tck-artifact-file-1", {"raw": "dGNr", "filename": "output.txt", "mediaType": "text/plain"}),
        (
            "tck-artifact-file-url-1",
            {"url": "https://example.com/output.txt", "filename": "output.txt", "mediaType": "text/plain"},
        ),
        ("tck-artifact-data-1", {"data": {"key": "value", "count": 42}}),
        ("tck-anything-else", {"text": "You said: Hello from TCK"}),
    ],
)
def test_a_scenarios_artifact(url: str, message_id: str, part: Any) -> None:
    task = send(url, message_id)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["artifacts"][0]["parts"] == [part]


def test_a_scenario_that_asks_goes_on_as_the_next_message_says(url: str) -> None:
    asks = send(url, "tck-input-required-1")
    assert asks["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    goes_on = send(url, "tck-complete-task-2", taskId=asks["id"])
    assert (goes_on["id"], goes_on["status"]["state"]) == (asks["id"], "TASK_STATE_COMPLETED")


def test_the_card_names_three_transports_that_can_be_reached(url: str) -> None:
    card = httpx.get(f"{url}/.well-known/agent-card.json").json()
    assert {each["transport"] for each in card["additionalInterfaces"]} == {"HTTP+JSON", "JSONRPC", "GRPC"}
    assert all(each["url"].startswith("http://localhost:") for each in card["additionalInterfaces"])
    assert card["capabilities"]["pushNotifications"]
