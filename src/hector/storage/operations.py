"""The frame of the store's operations: generators without I/O.

An operation yields the `Step`s that come next, in their order, is sent a `Result` for each, and returns its
own result. It runs inside one transaction that its driver begins and, when the operation returns, commits; an
exception that leaves it rolls everything back. Steps that are yielded together may be one round trip; none
may depend on the result of another, and if one fails, those after it may have been done.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Dialect, Executable
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")
_Arguments: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]


class Result(NamedTuple):
    rows: Sequence[Row]
    changed: int
    """How many rows a write changed."""


class Language(NamedTuple):
    """What a statement is compiled to."""

    dialect: Dialect
    """With a positional style of parameters."""
    schema: str | None = None
    """Of the tables, whose names are qualified with it."""


class Statement:
    """A Core statement, compiled once for each language to its text and the order of its parameters."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, str | None], tuple[str, _Arguments]] = {}

    def bind(self, language: Language, parameters: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        """The SQL text and its positional arguments. `KeyError` if a parameter is missing."""
        name = (language.dialect.name, language.schema)
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = self._compile(language)
        text, arguments = compiled
        return text, arguments(parameters)

    def _compile(self, language: Language) -> tuple[str, _Arguments]:
        compiled = self._statement.compile(  # type: ignore[attr-defined]  # a ClauseElement
            dialect=language.dialect,
            schema_translate_map={None: language.schema} if language.schema else None,
            render_schema_translate=language.schema is not None,
        )
        # No parameter that a caller happens to pass may stand in the place of a constant.
        constants = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        return str(compiled), _getter(compiled.positiontup or (), constants)


def _getter(names: Sequence[str], constants: Mapping[str, Any]) -> _Arguments:
    if len(names) < 2:  # one name alone would be given as it is, not in a sequence
        return lambda parameters: [{**parameters, **constants}[name] for name in names]
    get = itemgetter(*names)
    return (lambda parameters: get({**parameters, **constants})) if constants else get


class Step(NamedTuple):
    statement: Statement
    parameters: Mapping[str, Any]


Operation: TypeAlias = Generator[Sequence[Step], Sequence[Result], T]
MakeOperation: TypeAlias = Callable[[], Operation[T]]
"""Makes the operation anew, so that a driver can run it again."""


def fetch(statement: Statement, parameters: Mapping[str, Any]) -> Operation[Sequence[Row]]:
    ((rows, _),) = yield (Step(statement, parameters),)
    return rows


def execute(statement: Statement, parameters: Mapping[str, Any]) -> Operation[int]:
    ((_, changed),) = yield (Step(statement, parameters),)
    return changed


def together(*operations: Operation[Any]) -> Operation[Sequence[Any]]:
    """The results of operations that do not depend on one another, in as many rounds as the longest takes."""
    values: list[Any] = [None] * len(operations)
    asked: dict[int, Sequence[Step]] = {}

    def go_on(number: int, results: "Sequence[Result] | None") -> None:
        operation = operations[number]
        try:
            asked[number] = next(operation) if results is None else operation.send(results)
        except StopIteration as stop:
            values[number] = stop.value
            asked.pop(number, None)

    for number in range(len(operations)):
        go_on(number, None)
    while asked:
        results = iter((yield [step for steps in asked.values() for step in steps]))
        for number, steps in list(asked.items()):
            go_on(number, [next(results) for _ in steps])
    return values


class now(FunctionElement[Any]):  # noqa: N801  # reads like the other SQL functions
    """The database's clock in UTC, without a time zone."""

    inherit_cache: bool | None = True
    name = "now"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f','now')"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    # Not the transaction's start, which may lie long before a lock was had.
    return "timezone('utc', clock_timestamp())"


@compiles(now, "mysql")
@compiles(now, "mariadb")
def _now_mysql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "utc_timestamp(6)"


def remembering(operation: Callable[[T | None], Operation[T]]) -> MakeOperation[T]:
    """For operations that cannot see in the rows that an earlier run, whose commit got no answer, succeeded.

    Each run is given the outcome of the one before, None at first, which may have been committed or not.
    """
    before: T | None = None

    def make() -> "Operation[T]":  # in quotes, or it is built for each call
        nonlocal before
        before = yield from operation(before)
        return before

    return make
