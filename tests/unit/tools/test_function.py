import asyncio
import datetime as dt
import enum
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from hector.domain.errors import InputRequiredError, ToolError
from hector.tools.function import FunctionTool, ToolLoadError
from hector.tools.mark import tool


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Place(BaseModel):
    city: str


def forecast(
    city: Annotated[str, Field(description="Its English name")],
    days: int = 3,
    *,
    unit: Unit = Unit.CELSIUS,
    since: dt.date | None = None,
) -> dict[str, Any]:
    """The weather of the next days.

    Temperatures are rounded.
    """
    return {"city": city, "days": days, "unit": unit, "since": since}


def test_name_description_and_parameters_come_from_the_function() -> None:
    spec = FunctionTool(forecast).spec
    assert spec.name == "forecast"
    assert spec.description == "The weather of the next days.\n\nTemperatures are rounded."
    assert spec.parameters == {
        "$defs": {"Unit": {"enum": ["C", "F"], "title": "Unit", "type": "string"}},
        "additionalProperties": False,
        "properties": {
            "city": {"description": "Its English name", "type": "string"},
            "days": {"default": 3, "type": "integer"},
            "unit": {"$ref": "#/$defs/Unit", "default": "C"},
            "since": {"anyOf": [{"format": "date", "type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["city"],
        "type": "object",
    }


def test_a_tool_may_be_named_otherwise_than_its_function() -> None:
    assert FunctionTool(forecast, "weather").spec.name == "weather"


def test_a_function_of_no_parameters_takes_an_empty_object() -> None:
    def now() -> str:
        return "now"

    assert FunctionTool(now).spec.parameters == {
        "additionalProperties": False,
        "properties": {},
        "type": "object",
    }


async def test_arguments_are_converted_to_the_hinted_types_and_results_to_json() -> None:
    text = await FunctionTool(forecast).run({"city": "Oslo", "unit": "F", "since": "2026-01-31"})
    assert text == '{"city":"Oslo","days":3,"unit":"F","since":"2026-01-31"}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain\ntext", "plain\ntext"),
        (None, "null"),
        (3, "3"),
        (["é", True], '["é",true]'),
        (Place(city="Oslo"), '{"city":"Oslo"}'),
    ],
)
async def test_a_text_is_given_as_it_is_and_all_else_as_json(value: object, text: str) -> None:
    def answer() -> object:
        return value

    assert await FunctionTool(answer).run({}) == text


async def test_a_model_class_as_parameter_is_filled() -> None:
    async def visit(place: Place) -> str:
        return f"visited {place.city}"

    assert await FunctionTool(visit).run({"place": {"city": "Oslo"}}) == "visited Oslo"


async def test_named_extras_are_passed_where_the_function_takes_them() -> None:
    def label(text: str, **marks: int) -> str:
        return f"{text} {marks}"

    assert await FunctionTool(label).run({"text": "a", "b": 1}) == "a {'b': 1}"


async def test_arguments_that_do_not_fit_tell_the_model_what_is_wanted() -> None:
    def wait(seconds: int, why: str) -> None: ...

    with pytest.raises(ToolError) as raised:
        await FunctionTool(wait).run({"seconds": "long", "until": 3})
    assert str(raised.value) == (
        "the arguments do not fit the tool's parameters ("
        "seconds: Input should be a valid integer, unable to parse string as an integer;"
        " why: Missing required argument; until: Unexpected keyword argument); wanted: "
        '{"additionalProperties":false,"properties":{"seconds":{"type":"integer"},"why":{"type":"string"}},'
        '"required":["seconds","why"],"type":"object"}'
    )


async def test_a_fault_inside_of_the_function_is_not_taken_for_one_in_its_arguments() -> None:
    def broken() -> None:
        Place.model_validate({})

    with pytest.raises(ValueError, match="1 validation error for Place"):
        await FunctionTool(broken).run({})


@pytest.mark.parametrize("error", [ToolError("no"), InputRequiredError("which?")])
async def test_errors_for_the_model_and_questions_pass(error: Exception) -> None:
    def plain() -> None:
        raise error

    async def asynchronous() -> None:
        raise error

    for function in (plain, asynchronous):
        with pytest.raises(type(error), match=str(error)):
            await FunctionTool(function).run({})


async def test_a_plain_function_runs_beside_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    reached, go_on = asyncio.Event(), threading.Event()

    def blocks() -> str:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(10)
        return threading.current_thread().name

    running = asyncio.create_task(FunctionTool(blocks).run({}))
    await reached.wait()
    go_on.set()
    assert await running == "hector-tool"


async def test_a_plain_function_that_is_cancelled_is_abandoned_and_its_late_result_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    reached, go_on, threads = asyncio.Event(), threading.Event(), list[threading.Thread]()

    def blocks() -> None:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(10)

    running = asyncio.create_task(FunctionTool(blocks).run({}))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    threads[0].join(10)
    # The late result is on its way into the loop.
    await asyncio.sleep(0)
    assert caplog.text == ""


def test_an_abandoned_function_does_not_hold_up_the_end_of_the_process() -> None:
    code = """
import asyncio, threading
from hector.tools.function import FunctionTool

async def abandon():
    loop, reached = asyncio.get_running_loop(), asyncio.Event()
    def blocks():
        loop.call_soon_threadsafe(reached.set)
        threading.Event().wait()
    running = asyncio.create_task(FunctionTool(blocks).run({}))
    await reached.wait()
    running.cancel()

asyncio.run(abandon())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_an_abandoned_function_may_outlive_its_loop() -> None:
    go_on, threads = threading.Event(), list[threading.Thread]()

    async def abandon() -> None:
        loop, reached = asyncio.get_running_loop(), asyncio.Event()

        def blocks() -> None:
            threads.append(threading.current_thread())
            loop.call_soon_threadsafe(reached.set)
            assert go_on.wait(10)

        running = asyncio.create_task(FunctionTool(blocks).run({}))
        await reached.wait()
        running.cancel()

    asyncio.run(abandon())
    go_on.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


async def test_a_plain_function_that_gives_a_coroutine_is_awaited() -> None:
    async def inner(n: int) -> int:
        return n + 1

    def outer(n: int) -> Coroutine[Any, Any, int]:
        return inner(n)

    assert await FunctionTool(outer).run({"n": 1}) == "2"


async def test_a_method_and_an_object_with_a_call_are_functions_too() -> None:
    class Greeter:
        def greet(self, name: str) -> str:
            return f"hello {name}"

        async def __call__(self, name: str) -> str:
            return f"hi {name}"

    assert await FunctionTool(Greeter().greet).run({"name": "A"}) == "hello A"
    assert await FunctionTool(Greeter()).run({"name": "A"}) == "hi A"
    assert FunctionTool(Greeter()).spec.name == "Greeter"


def _positional(a: int, /) -> None: ...
def _starred(*numbers: int) -> None: ...
def _odd(thread: threading.Thread) -> None: ...
def _calls(back: Callable[[], None]) -> None: ...
def _unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _yields() -> Iterator[int]:
    yield 1


async def _streams() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (
            _positional,
            "'_positional': its parameters cannot be described to a model: a: int has no name that a",
        ),
        (
            _starred,
            "'_starred': its parameters cannot be described to a model: *numbers: int has no name that a",
        ),
        (
            _odd,
            "'_odd': its parameters cannot be described to a model: Unable to generate pydantic-core schema",
        ),
        (_calls, "'_calls': its parameters cannot be described to a model: Cannot generate a JsonSchema"),
        (
            _unknown,
            "'_unknown': its parameters cannot be described to a model: name 'Nowhere' is not defined",
        ),
        (_yields, "'_yields': it yields; a tool returns its result in one piece"),
        (_streams, "'_streams': it yields; a tool returns its result in one piece"),
        (lambda: None, "'<lambda>': its name is none for a tool: 1 to 64 of A-Z a-z 0-9 _ -"),
    ],
)
def test_a_function_that_cannot_be_a_tool_says_why(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(ToolLoadError) as raised:
        FunctionTool(function)
    assert str(raised.value).startswith(f"tool {told}")


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_time_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ToolLoadError, match=r"tool 'forecast': timeout: -?[01] is no time in seconds"):
        FunctionTool(forecast, timeout=timeout)


def test_a_declared_function_stays_a_function() -> None:
    @tool(idempotent=True, timeout=5)
    def double(n: int) -> int:
        return 2 * n

    @tool
    def triple(n: int) -> int:
        return 3 * n

    assert (double(2), triple(2)) == (4, 6)


def test_importing_what_declares_tools_imports_nothing_heavy() -> None:
    code = "import sys, hector; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
