"""Which faults a run makes, and when: a function of its seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.chaos.stores import DatabaseName

AnyFault: TypeAlias = Literal["kill", "stop", "pause", "delete", "kill call"]
ServerFault: TypeAlias = Literal[
    "cut connections", "lose answers", "partition", "crash database", "freeze database"
]
"""Of database servers, and of the network in between."""
Fault: TypeAlias = AnyFault | ServerFault

TOLD: Mapping[Fault, str] = {
    "kill": "servers killed, {workers} of them one worker of two",
    "stop": "servers told to stop, which hand over what they run",
    "pause": "servers frozen for longer than their lease",
    "delete": "sessions deleted in use",
    "kill call": "of {calls} `hector call` killed",
    "cut connections": "times the database ended all connections of a server",
    "lose answers": "times the network lost the database's answers to a server, and then its connections",
    "partition": "servers cut off from the database for longer than their lease",
    "crash database": "times the database killed, and started again",
    "freeze database": "times the database hung for longer than a lease",
}
_ON_A_FILE: Mapping[Fault, int] = {
    "kill": 35,
    "stop": 15,
    "pause": 15,
    "delete": 25,
    "kill call": 10,
}
_ON_A_SERVER: Mapping[Fault, int] = {
    "kill": 20,
    "stop": 8,
    "pause": 8,
    "delete": 18,
    "kill call": 5,
    "cut connections": 13,
    "lose answers": 15,
    "partition": 8,
    "crash database": 4,
    "freeze database": 3,
}
_BETWEEN_FAULTS = 0.35
"""Seconds on average."""
_BLOW_UPON_BLOW = 0.3
"""How likely a fault does not wait until clients have had answers after the last one."""
_KILL_DURING_A_START = 0.15
"""How likely a server may be killed while another is starting."""
_IN_A_CALL = 0.25
"""How likely a server is killed, stopped or frozen just after one of its tools had its effect."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    kind: Fault
    after: float
    """Seconds after the one before."""
    at_once: bool
    """Whether or not clients have had answers since."""
    during_a_start: bool
    in_a_call: bool
    """Of a tool, between its effect and its result."""
    seed: str
    """Of what is chosen when it is made: whose, for how long."""


def weights(database: DatabaseName) -> Mapping[Fault, int]:
    return _ON_A_FILE if database == "sqlite" else _ON_A_SERVER


def plan(database: DatabaseName, faults: int, seed: int) -> Iterator[PlannedFault]:
    kinds = weights(database)
    for number in range(faults):
        own = f"{seed}/{number}"
        rng = random.Random(own)
        yield PlannedFault(
            rng.choices(list(kinds), list(kinds.values()))[0],
            rng.expovariate(1 / _BETWEEN_FAULTS),
            rng.random() < _BLOW_UPON_BLOW,
            rng.random() < _KILL_DURING_A_START,
            rng.random() < _IN_A_CALL,
            own,
        )
