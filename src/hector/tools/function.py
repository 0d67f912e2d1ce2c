"""A Python function as a tool."""

import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ArgsKwargs, CoreSchema, to_json

from hector.domain.errors import ConfigError, Problem, ToolError
from hector.domain.messages import JsonValue
from hector.domain.tools import ToolSpec
from hector.tools.mark import DEFAULT_TIMEOUT, mark_of
from hector.tools.thread import in_thread

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolLoadError(ConfigError):
    """A function cannot be a tool, or is not to be found."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__([Problem("", f"tool {name!r}: {why}")])
        self.why = why


class FunctionTool:
    """A plain or async function; a plain one runs in a thread of its own.

    Its name, docstring and type hints are what the model is told. A result that is no text is given as JSON.
    Raises `ToolLoadError` if the function cannot be a tool.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        idempotent: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        name = name or str(getattr(function, "__name__", type(function).__name__))
        if not _NAME.fullmatch(name):
            raise ToolLoadError(name, "its name is none for a tool: 1 to 64 of A-Z a-z 0-9 _ -")
        if timeout is not None and timeout <= 0:
            raise ToolLoadError(
                name, f"timeout: {timeout:g} is no time in seconds; above 0, or None for no limit"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ToolLoadError(name, "it yields; a tool returns its result in one piece")
        self._function = function
        self._arguments, schema = _arguments_of(function, name)
        self._idempotent, self._timeout = idempotent, timeout
        self._spec = ToolSpec(name, inspect.getdoc(function) or "", schema)

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def idempotent(self) -> bool:
        return self._idempotent

    @property
    def timeout(self) -> float | None:
        return self._timeout

    async def run(self, arguments: Mapping[str, JsonValue]) -> str:
        try:
            validated = self._arguments.validate_python(ArgsKwargs((), dict(arguments)))
        except ValidationError as error:
            raise ToolError(self._what_is_wanted(error)) from None
        call = functools.partial(self._function, **validated)
        result = await call() if _is_async(self._function) else await in_thread(call)
        if inspect.isawaitable(result):
            # A plain function that wraps an async one.
            result = await result
        return result if isinstance(result, str) else to_json(result).decode()

    def _what_is_wanted(self, error: ValidationError) -> str:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)
        )
        schema = to_json(self._spec.parameters).decode()
        return f"the arguments do not fit the tool's parameters ({faults}); wanted: {schema}"


def load_tool(reference: str) -> FunctionTool:
    """The tool that `module:function` names; the module may lie in the current directory.

    Raises `ToolLoadError`.
    """
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise ToolLoadError(reference, "wanted module:function, such as weather:forecast")
    function = _find(_import(module_name, reference), path, reference)
    if not callable(function):
        raise ToolLoadError(reference, f"it is a {type(function).__name__}; wanted a function")
    mark = mark_of(function)
    try:
        return FunctionTool(function, mark.name, idempotent=mark.idempotent, timeout=mark.timeout)
    except ToolLoadError as error:
        # Whoever looks for the fault knows the path, and perhaps not the name.
        raise ToolLoadError(reference, error.why) from error.__cause__


def _import(name: str, reference: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module is other people's code, and may do anything
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise ToolLoadError(
                reference, f"no module named {error.name!r} in {here} or among the installed packages"
            ) from None
        raise ToolLoadError(
            reference, f"importing {name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _find(module: object, path: str, reference: str) -> Any:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            near = get_close_matches(name, [each for each in dir(found) if not each.startswith("_")], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ToolLoadError(reference, f"there is no {name!r} in it{hint}")
        found = getattr(found, name)
    return found


def _arguments_of(
    function: Callable[..., Any], name: str
) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    """What checks arguments against the signature, converts them and adds the defaults; and their schema."""

    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    try:
        signature, hints = _signature_of(function)
        # pydantic reads both, and calls `given` in the function's place: so a fault in the arguments is never
        # mistaken for one in the function.
        given.__signature__ = signature  # type: ignore[attr-defined]
        given.__annotations__ = hints
        # Typed for types only; functions are documented to work.
        adapter = TypeAdapter[dict[str, Any]](cast(Any, given))
        return adapter, adapter.json_schema(schema_generator=_Untitled)
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise ToolLoadError(
            name, f"its parameters cannot be described to a model: {_first_line(error)}"
        ) from error


def _signature_of(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    signature = inspect.signature(function)
    hinted = function if inspect.isroutine(function) else type(function).__call__
    hints = typing.get_type_hints(hinted, include_extras=True)
    unnameable = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    for parameter in signature.parameters.values():
        if parameter.kind in unnameable:
            raise TypeError(f"{parameter} has no name that a model could give; make it a named parameter")
    return signature, hints


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is looked at
    )


class _Untitled(GenerateJsonSchema):
    """Without the titles that repeat each name: a model pays for every word."""

    def field_title_should_be_set(self, schema: CoreSchema | Any) -> bool:
        return False


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
