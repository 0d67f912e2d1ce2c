"""What docs/tools.md shows is run as it stands there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hector.domain.errors import InputRequiredError, ToolError
from hector.tools.function import FunctionTool, load_tool

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "tools.md").read_text()
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the guide's modules, of which none stays loaded."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def test_every_python_example_is_one_of_the_modules() -> None:
    assert GUIDE.count("```python") == len(MODULES) == 4


async def test_the_tool_that_the_yaml_names_works() -> None:
    (reference,) = re.findall(r"^ +- (\w+:\w+)$", GUIDE, re.MULTILINE)
    temperature = load_tool(reference)
    assert (temperature.idempotent, temperature.timeout) == (True, 5)
    assert temperature.spec.description == "How warm it is in a city now."
    assert temperature.spec.parameters["required"] == ["city"]
    assert await temperature.run({"city": "Oslo"}) == "4 °C in Oslo"
    with pytest.raises(ToolError, match="no data for 'Rome'; there is data for Oslo, Lagos"):
        await temperature.run({"city": "Rome"})


async def test_the_async_tool_gives_json() -> None:
    found = await load_tool("search:search").run({"words": ["leave", "travel"], "limit": 1})
    assert found == '[{"title":"Leave","rank":1}]'


async def test_the_tool_that_asks_pauses_first_and_then_books() -> None:
    book = load_tool("booking:book")
    assert not book.idempotent
    with pytest.raises(InputRequiredError, match="Shall I book room 7 for you"):
        await book.run({"room": "7"})
    assert await book.run({"room": "7", "confirmed": True}) == "booked 7"


def test_the_guides_own_tests_pass(here: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_weather.py"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_defaults_are_those_of_the_guide() -> None:
    def plain() -> None: ...

    tool = FunctionTool(plain)
    assert "60 by default" in GUIDE
    assert (tool.idempotent, tool.timeout) == (False, 60)
