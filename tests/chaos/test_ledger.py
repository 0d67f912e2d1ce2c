"""What tools wrote down is read as they wrote it, also while they write."""

import asyncio
import json
from pathlib import Path

import pytest

from hector.tools.mark import mark_of
from tests.chaos import tools
from tests.chaos.history import key_of
from tests.chaos.ledger import SIDE_EFFECTS, Ledger, Told, parse_result


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    path = tmp_path / "ledger.txt"
    monkeypatch.setenv(tools.LEDGER, str(path))
    return Ledger(path)


async def test_each_run_of_a_tool_is_written_down_and_told_in_its_result(ledger: Ledger) -> None:
    key = key_of("ant/una/s/1", 7, 1)
    results = [await tools.look(key), await asyncio.to_thread(tools.pay, key)]
    runs = ledger.news()
    assert [(run.tool, run.key) for run in runs] == [("look", key), ("pay", key)]
    assert [parse_result(result) for result in results] == [Told(key, run.run) for run in runs]
    assert len({run.run for run in runs}) == 2
    assert ledger.news() == []


def test_the_tools_with_side_effects_are_those_that_are_declared_so() -> None:
    declared = {tool.__name__ for tool in (tools.look, tools.pay) if not mark_of(tool).idempotent}
    assert declared == SIDE_EFFECTS


def test_half_a_line_is_read_when_it_is_whole(ledger: Ledger) -> None:
    line = json.dumps({"tool": "pay", "key": "k", "run": "r", "pid": 1, "at": 2.0}) + "\n"
    ledger.path.write_text(line + line[:10])
    assert len(ledger.news()) == 1
    with ledger.path.open("a") as file:
        file.write(line[10:])
    assert len(ledger.news()) == 1


async def test_a_payment_is_waited_for(ledger: Ledger) -> None:
    waiting = asyncio.create_task(Ledger(ledger.path).until_run({"pay"}, 30))
    await tools.look("k")
    await asyncio.to_thread(tools.pay, "k")
    paid = await waiting
    assert paid
    assert (paid.tool, paid) == ("pay", ledger.news()[-1])
    assert await Ledger(ledger.path).until_run({"pay"}, 0) is None, "what was paid before does not count"
