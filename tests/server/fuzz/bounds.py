"""How much is tried: the same little in each run of `make test`, and in long ones much, new each time."""

import pytest
from hypothesis import HealthCheck, settings

LONG = 50
"""Times as much."""
LENGTHS = pytest.mark.parametrize(
    "long",
    [
        pytest.param(False, id="short"),
        pytest.param(True, id="long", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)


def bounded(examples: int, *, long: bool) -> settings:
    """What a long run finds it prints with the seed that finds it again."""
    return settings(
        max_examples=examples * (LONG if long else 1),
        derandomize=not long,
        print_blob=long,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
