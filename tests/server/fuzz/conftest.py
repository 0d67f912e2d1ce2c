from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.fuzz.target import Target, fuzzed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The server's thread uses Python's random numbers, for which Hypothesis blames the strategies.
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:Do not use the `random` module"))


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with fuzzed() as target:
        yield target
        target.check_alive()
