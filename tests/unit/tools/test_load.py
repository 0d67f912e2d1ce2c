import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hector.tools.function import ToolLoadError, load_tool

MODULE = """
    from hector.tools.mark import tool

    answer = 42

    def forecast(city: str) -> str:
        return f"sunny in {city}"

    @tool(name="look-up", idempotent=True, timeout=5)
    async def look_up(word: str) -> str:
        return word.upper()

    @tool(timeout=None)
    def slow() -> None: ...

    class Maths:
        @staticmethod
        def double(n: int) -> int:
            return 2 * n

    def odd(thing: object()) -> None: ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with modules, of which nothing stays behind."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_tools.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "my_broken.py").write_text("1 / 0")
    (tmp_path / "my_script.py").write_text("raise SystemExit(3)")
    (tmp_path / "my_needy.py").write_text("import my_missing")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


async def test_a_function_in_the_current_directory_is_loaded() -> None:
    loaded = load_tool("my_tools:forecast")
    assert (loaded.spec.name, loaded.idempotent, loaded.timeout) == ("forecast", False, 60)
    assert await loaded.run({"city": "Oslo"}) == "sunny in Oslo"


async def test_what_a_function_was_declared_to_be_is_kept() -> None:
    loaded = load_tool("my_tools:look_up")
    assert (loaded.spec.name, loaded.idempotent, loaded.timeout) == ("look-up", True, 5)
    assert await loaded.run({"word": "a"}) == "A"
    assert load_tool("my_tools:slow").timeout is None


async def test_a_function_may_lie_in_a_class() -> None:
    assert await load_tool("my_tools:Maths.double").run({"n": 2}) == "4"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("forecast", "wanted module:function, such as weather:forecast"),
        ("my_tools:", "wanted module:function, such as weather:forecast"),
        (":forecast", "wanted module:function, such as weather:forecast"),
        ("my_tool:forecast", "no module named 'my_tool' in {here} or among the installed packages"),
        ("my_tools.sub:f", "no module named 'my_tools.sub'"),
        ("my_tools:forcast", "there is no 'forcast' in it (did you mean 'forecast'?)"),
        ("my_tools:zzz", "there is no 'zzz' in it"),
        ("my_tools:answer", "it is a int; wanted a function"),
        ("my_broken:f", "importing 'my_broken' failed: ZeroDivisionError: division by zero"),
        ("my_script:f", "importing 'my_script' failed: SystemExit: 3"),
        ("my_needy:f", "importing 'my_needy' failed: ModuleNotFoundError: No module named 'my_missing'"),
        ("..my_tools:f", "importing '..my_tools' failed: TypeError"),
    ],
)
def test_a_tool_that_cannot_be_loaded_says_why(reference: str, told: str, here: Path) -> None:
    with pytest.raises(ToolLoadError) as raised:
        load_tool(reference)
    (problem,) = raised.value.problems
    assert problem.text.startswith(f"tool {reference!r}: {told.format(here=here)}")


def test_a_function_that_cannot_be_a_tool_is_named_as_it_was_written() -> None:
    with pytest.raises(
        ToolLoadError, match="tool 'my_tools:odd': its parameters cannot be described to a model"
    ):
        load_tool("my_tools:odd")
