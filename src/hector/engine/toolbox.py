"""Runs the calls of a model; whatever goes wrong in a tool is a result for the model."""

import asyncio
import json
import logging
from collections.abc import Mapping

from hector.domain.errors import InputRequiredError, ToolError
from hector.domain.messages import JsonValue, ToolCall, ToolResult
from hector.domain.tools import Tool, ToolSpec
from hector.engine.clean import storable
from hector.engine.defects import describe_defect

MAX_RESULT = 1_000_000
"""Characters of a result that are kept: more would fit into no model's window."""

_log = logging.getLogger(__name__)


class Toolbox:
    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self.specs: tuple[ToolSpec, ...] = tuple(tool.spec for tool in tools.values())

    def idempotent(self, name: str) -> bool:
        """Whether a call of that name may be run again; one that no tool answers does nothing, so it may."""
        return name not in self._tools or self._tools[name].idempotent

    async def run(self, call: ToolCall) -> ToolResult:
        """Never raises but when it is cancelled."""
        try:
            text = await self._run(call)
        except ToolError as error:
            return _result(call, str(error), is_error=True)
        except InputRequiredError as error:
            question = storable(error.question)
            return _result(call, f"the user was asked: {question}; the answer follows", question=question)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this call: the tool awaited something of its own that was.
            return _failed(call, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - tools are other people's code, and may do anything
            return _failed(call, error)
        return _result(call, text)

    async def _run(self, call: ToolCall) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            raise ToolError(f"there is no tool named {call.name!r}; the tools are: {known}")
        arguments = _parse(call.arguments)
        limit = asyncio.timeout(tool.timeout)
        try:
            async with limit:
                return await tool.run(arguments)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ToolError(
                # Not "was stopped": a plain function cannot be.
                f"tool {call.name!r} did not finish within {tool.timeout:g} s"
                " and may or may not have taken effect"
            ) from None


def _parse(arguments: str) -> Mapping[str, JsonValue]:
    try:
        # Some models write nothing where there is nothing to say.
        value = json.loads(arguments, parse_constant=_no_constant) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments are not valid JSON ({error}); wanted one JSON object") from None
    if not isinstance(value, dict):
        raise ToolError(
            f"the arguments are JSON, but not an object: {arguments[:100]!r}; wanted one JSON object"
        )
    return value


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def _result(call: ToolCall, text: str, *, is_error: bool = False, question: str | None = None) -> ToolResult:
    if len(text) > MAX_RESULT:
        text = f"{text[:MAX_RESULT]} [... cut: the result has {len(text)} characters]"
    return ToolResult(call.id, call.name, storable(text), is_error, question)


def _failed(call: ToolCall, error: BaseException) -> ToolResult:
    _log.error("tool %r has a defect:\n%s", call.name, describe_defect(error))
    return _result(call, f"tool {call.name!r} failed with an internal error", is_error=True)
