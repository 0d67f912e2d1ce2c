"""What workers are told and tell, and whether one that ended is started again."""

import logging
import socket

import pytest

from hector.cli.logs import JsonLines, text_lines
from hector.cli.settings import Options, Source
from hector.cli.workers.messages import (
    Assignment,
    Failed,
    Ready,
    Report,
    decode_assignment,
    decode_report,
    encode_assignment,
    encode_report,
)
from hector.cli.workers.restarts import STEADY, Again, End, GiveUp, after
from hector.cli.workers.supervisor import Held, Supervisor
from hector.server.http.sharing import Counts


def test_an_assignment_arrives_as_it_was_sent() -> None:
    source = Source("c.yaml", "agents:\n  ü: {}\n", Options("::1", 0, 4, "debug"))
    assignment = Assignment(3, source, (5, 6), 8090, 7, at_once=True)
    line = encode_assignment(assignment)
    assert line.count(b"\n") == 1
    assert decode_assignment(line) == assignment


@pytest.mark.parametrize("report", [Ready(), Failed(2, ("c.yaml:1: agents: is missing", "x\ny"))])
def test_a_report_arrives_as_it_was_sent(report: Report) -> None:
    line = encode_report(report)
    assert line.count(b"\n") == 1
    assert decode_report(line) == report


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_how_it_ended_is_told_in_words(status: int, told: str) -> None:
    assert str(End(status, 1.0)) == told


def delays(lived: float, *, served: bool = True, times: int = 12) -> list[float]:
    found: list[float] = []
    deaths = 0
    for _ in range(times):
        match after(End(-11, lived), 1, deaths, served=served):
            case Again(delay, deaths):
                found.append(delay)
            case GiveUp():
                pytest.fail("it was given up")
    return found


def test_who_dies_again_and_again_is_started_ever_more_seldom() -> None:
    assert delays(0.2) == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


def test_who_served_for_a_while_is_started_again_at_once() -> None:
    assert set(delays(STEADY)) == {0.0}
    assert after(End(-11, STEADY), 1, 7, served=True) == Again(0.0, 0)


def test_what_the_operator_has_to_mend_ends_the_first_start() -> None:
    end = End(2, 1.0, Failed(2, ("c.yaml:1: x",)))
    assert after(end, 1, 0, served=False) == GiveUp(2, ("c.yaml:1: x",))
    assert after(end, 1, 0, served=True) == Again(0.0, 1)


def test_deaths_at_the_first_start_end_it_too() -> None:
    assert delays(0.2, served=False, times=2) == [0, 0.5]
    assert after(End(-11, 0.2), 5, 2, served=False) == GiveUp(
        1, ("Error: worker 5 cannot start: it was killed by SIGSEGV, 3 times in a row",)
    )


def test_log_lines_tell_which_worker() -> None:
    record = logging.makeLogRecord({"name": "hector.x", "levelname": "INFO", "msg": "100%"})
    assert text_lines(2).format(record).endswith("Z INFO    [worker 2] hector.x: 100%")
    assert text_lines().format(record).endswith("Z INFO    hector.x: 100%")
    assert '"worker": 2, ' in JsonLines(2).format(record)
    assert "worker" not in JsonLines().format(record)


async def test_a_worker_accepts_at_once_only_where_no_other_does() -> None:
    source = Source("c.yaml", "", Options())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(source, Held([listener], [listener]), {}, workers=2, ready=lambda: None)
        first = supervisor._assignment(1)
        assert first.at_once
        Counts(first.counts, 2)[0] = 0
        assert not supervisor._assignment(2).at_once
        supervisor._release()
