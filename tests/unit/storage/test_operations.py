"""Statements: their parameters, and how SQLite runs them."""

import sqlite3
from collections.abc import Iterator

import pytest
from sqlalchemy import bindparam, insert, literal, select

from hector.storage import statements
from hector.storage.migrate import upgrade_sqlite
from hector.storage.operations import Operation, Result, Statement, Step, together
from hector.storage.sqlite import LANGUAGE
from hector.storage.tables import replicas, sessions


def _statements() -> Iterator[tuple[str, Statement]]:
    for name, value in vars(statements).items():
        match value:
            case Statement():
                yield name, value
            case tuple() | dict():
                several = value.values() if isinstance(value, dict) else value
                found = [each for each in several if isinstance(each, Statement)]
                yield from ((f"{name}-{n}", each) for n, each in enumerate(found))
            case _:
                pass


ALL = dict(_statements())


def _text(statement: Statement) -> str:
    return statement._compile(LANGUAGE)[0]


def test_arguments_come_in_the_order_of_the_text() -> None:
    statement = Statement(
        select(sessions.c.id).where(sessions.c.user_id == bindparam("b"), sessions.c.id == bindparam("a"))
    )
    _, arguments = statement.bind(LANGUAGE, {"a": 1, "b": 2, "c": 3})
    assert list(arguments) == [2, 1]


def test_a_missing_parameter_is_an_error_and_not_null() -> None:
    statement = Statement(select(sessions.c.id).where(sessions.c.id == bindparam("a")))
    with pytest.raises(KeyError):
        statement.bind(LANGUAGE, {"b": 1})


def test_a_parameter_does_not_displace_a_constant_of_its_name() -> None:
    statement = Statement(
        insert(replicas).inline().values(id=bindparam("replica"), counter=0, label=literal("x"))
    )
    names = {"replica": "r", "counter": 7, "label": "y", "param_1": "z"}
    text, arguments = statement.bind(LANGUAGE, names)
    assert 7 not in arguments
    assert "y" not in arguments
    assert "r" in arguments
    assert text.count("?") == len(arguments)


def test_a_statement_without_parameters_has_no_arguments() -> None:
    assert list(Statement(select(replicas.c.id)).bind(LANGUAGE, {"a": 1})[1]) == []


HOUSEKEEPING = {
    "INSERT_REPLICA",
    "BEAT",
    "LIST_REPLICAS",
    "GET_REPLICA",
    "DECLARE_DEAD",
    "RETIRE",
    "RUNNING_OF",
    "WAITING_OF",
    "RUNNING_ORPHANS",
    "WAITING_ORPHANS",
    "DATABASE_TIME",
    "FORGET_EVENTS",
}


@pytest.mark.parametrize("name", sorted(ALL.keys() - HOUSEKEEPING))
def test_a_statement_for_a_caller_names_agent_and_user(name: str) -> None:
    text = _text(ALL[name])
    if text.startswith("INSERT"):
        assert "agent_id, user_id" in text
    elif not name.startswith("LIST_SESSIONS"):
        _, where = text.split("WHERE", 1)
        assert "agent_id = ?" in where
        assert "user_id = ?" in where
        assert " OR " not in where


@pytest.mark.parametrize("name", sorted(HOUSEKEEPING))
def test_housekeeping_reads_keys_and_states_alone(name: str) -> None:
    text = _text(ALL[name])
    assert "content" not in text
    assert "metadata" not in text


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    upgrade_sqlite(connection)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", ALL)
def test_no_statement_reads_a_whole_table(name: str, database: sqlite3.Connection) -> None:
    text = _text(ALL[name])
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", [1] * text.count("?"))]
    scans = [
        step for step in plan if step.startswith("SCAN") and "USING" not in step and "CONSTANT" not in step
    ]
    if name == "LIST_REPLICAS":
        scans = []
    assert scans == [], plan


@pytest.mark.parametrize("name", ["PAGE_BEFORE", "TAIL_BEFORE", "FIND_MESSAGE", "LATEST_SUMMARY"])
def test_the_newest_rows_are_found_without_sorting(name: str, database: sqlite3.Connection) -> None:
    text = _text(ALL[name])
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", [1] * text.count("?"))]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_operations_go_on_together_and_each_is_sent_its_own_results() -> None:
    statement = Statement(select(sessions.c.id))

    def asks(name: str, *counts: int) -> Operation[list[int]]:
        changed = []
        for count in counts:
            results = yield [Step(statement, {"of": name, "number": number}) for number in range(count)]
            changed += [result.changed for result in results]
        return changed

    def whole() -> Operation[list[list[int]]]:
        return list((yield from together(asks("a", 1, 1), asks("none"), asks("b", 2), asks("c", 1, 2, 1))))

    operation, rounds, values = whole(), [], None
    steps = next(operation)
    try:
        while True:
            rounds.append(["{of}{number}".format(**step.parameters) for step in steps])
            done = sum(map(len, rounds[:-1]))
            steps = operation.send([Result((), done + number) for number in range(len(steps))])
    except StopIteration as stop:
        values = stop.value
    assert rounds == [["a0", "b0", "b1", "c0"], ["a0", "c0", "c1"], ["c0"]]
    assert values == [[0, 4], [], [1, 2], [3, 5, 6, 7]]
