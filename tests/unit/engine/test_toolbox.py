import asyncio

import pytest

from hector.domain.errors import InputRequiredError, ToolError
from hector.domain.messages import ToolResult
from hector.engine.defects import describe_defect
from hector.engine.toolbox import MAX_RESULT, Toolbox
from tests.unit.engine.fakes import FakeTool, Forever, call, result


async def run(tool: FakeTool, arguments: str = "{}") -> ToolResult:
    return await Toolbox({tool.spec.name: tool}).run(call(tool.spec.name, arguments))


async def test_a_result_names_its_call() -> None:
    assert await run(FakeTool("f", "42")) == result("42", "f")


async def test_a_tool_is_given_its_arguments() -> None:
    tool = FakeTool("f")
    await run(tool, '{"city": "Oslo", "days": [1, 2]}')
    assert tool.runs == [{"city": "Oslo", "days": [1, 2]}]


async def test_no_arguments_at_all_are_an_empty_object() -> None:
    tool = FakeTool("f")
    await run(tool, " ")
    assert tool.runs == [{}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            '{"a": ',
            "the arguments are not valid JSON (Expecting value: line 1 column 7 (char 6)); wanted one",
        ),
        ('{"a": NaN}', "the arguments are not valid JSON (NaN is not JSON); wanted one JSON object"),
        ("[1]", "the arguments are JSON, but not an object: '[1]'; wanted one JSON object"),
        ("[" * 100_000, "the arguments are not valid JSON"),
    ],
)
async def test_arguments_that_cannot_be_read_are_told_to_the_model(arguments: str, told: str) -> None:
    tool = FakeTool("f")
    ran = await run(tool, arguments)
    assert ran.is_error
    assert ran.text.startswith(told)
    assert tool.runs == []


async def test_an_unknown_tool_is_answered_with_those_there_are() -> None:
    box = Toolbox({"f": FakeTool("f"), "e": FakeTool("e")})
    assert await box.run(call("g")) == result(
        "there is no tool named 'g'; the tools are: e, f", "g", is_error=True
    )


async def test_a_tools_own_error_is_told_to_the_model() -> None:
    assert await run(FakeTool("f", ToolError("no such city"))) == result("no such city", "f", is_error=True)


async def test_a_question_for_the_user_is_a_result_too() -> None:
    assert await run(FakeTool("f", InputRequiredError("which one?"))) == result(
        "the user was asked: which one?; the answer follows", "f", question="which one?"
    )


async def test_a_tool_that_takes_too_long_is_stopped_and_the_model_told() -> None:
    forever = Forever()
    ran = await run(FakeTool("f", forever, timeout=0.01))
    assert ran.is_error
    assert ran.text == ("tool 'f' did not finish within 0.01 s and may or may not have taken effect")
    assert forever.stopped


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), TimeoutError("secret"), asyncio.CancelledError("secret"), SystemExit("secret")],
    ids=lambda error: type(error).__name__,
)
async def test_a_defect_is_logged_and_told_without_its_text(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    ran = await run(FakeTool("f", error, timeout=10))
    assert ran == result("tool 'f' failed with an internal error", "f", is_error=True)
    assert type(error).__name__ in caplog.text
    assert "fakes.py" in caplog.text
    assert "secret" not in caplog.text


async def test_cancelling_a_call_stops_its_tool() -> None:
    forever = Forever()
    task = asyncio.create_task(run(FakeTool("f", forever)))
    await forever.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert forever.stopped


async def test_a_result_is_cut_above_the_limit_and_made_storable() -> None:
    text = (await run(FakeTool("f", "\0" + "x" * MAX_RESULT))).text
    assert text.startswith("�x")
    assert text.endswith(f" [... cut: the result has {MAX_RESULT + 1} characters]")
    assert len(text) < MAX_RESULT + 100


def test_a_call_that_no_tool_answers_may_be_run_again() -> None:
    box = Toolbox({"read": FakeTool("read", idempotent=True), "pay": FakeTool("pay")})
    assert [box.idempotent(name) for name in ("read", "pay", "none")] == [True, False, True]


def test_a_defect_is_described_with_all_that_led_to_it_and_without_texts() -> None:
    def first() -> None:
        raise KeyError("secret")

    def second() -> None:
        try:
            first()
        except KeyError as error:
            raise ExceptionGroup("secret", [OSError("secret")]) from error

    with pytest.raises(ExceptionGroup) as raised:
        second()
    lines = describe_defect(raised.value).splitlines()
    # Lines of code are shown, and here they name the texts.
    told = "\n".join(line for line in lines if "raise" not in line)
    assert [line for line in lines if "Error" in line and "raise" not in line and "except" not in line] == [
        "builtins.KeyError",
        "builtins.OSError",
    ]
    assert "in first" in told
    assert "in second" in told
    assert "builtins.ExceptionGroup" in told
    assert "secret" not in told
