"""Starting costs little, and bad usage is told apart from failure."""

import subprocess
import sys

import pytest

HEAVY = (
    "a2a",
    "alembic",
    "asyncio",
    "openai",
    "prompt_toolkit",
    "pydantic",
    "pydantic_ai",
    "rich",
    "sqlalchemy",
    "uvicorn",
)


def hector(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hector", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", ["hector", "hector.cli.main"])
def test_what_every_start_imports_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_public_names_are_these() -> None:
    import hector as package

    assert package.__all__ == ["InputRequiredError", "ToolError", "__version__", "tool"]
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Usage: hector"),
        (("nope",), "No such command 'nope'"),
        (("vesion",), "Did you mean 'version'"),
        (("call", "assistant"), "Missing argument 'MESSAGE'"),
        (("serve", "--port", "70000"), "Invalid value for '--port'"),
        (("serve", "--log-level", "loud"), "Invalid value for '--log-level'"),
        (("call", "--sesion=x", "a", "b"), "No such option: --sesion"),
        (("sessions", "list", "--user=u", "--all-users"), "not both"),
        (("config", "check", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
    ],
)
def test_bad_usage_is_told_and_ends_with_2(arguments: tuple[str, ...], told: str) -> None:
    ended = hector(*arguments)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", [(), ("serve",), ("sessions", "show")])
def test_help_is_told_either_way(command: tuple[str, ...], option: str) -> None:
    ended = hector(*command, option)
    assert ended.returncode == 0
    assert ended.stdout.startswith("Usage: hector")
    assert ended.stderr == ""
