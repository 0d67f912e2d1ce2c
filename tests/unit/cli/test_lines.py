"""Lines that are piped into a chat."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hector.cli.lines import PipedLines
from hector.domain.errors import InvalidError


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Makes the bytes what standard input holds."""
    with ExitStack() as opened:

        def typed(content: bytes) -> None:
            (tmp_path / "input").write_bytes(content)
            monkeypatch.setattr("sys.stdin", opened.enter_context((tmp_path / "input").open()))

        yield typed


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"no end", ["no end"]),
        (b"\n  \nafter nothing\n", ["after nothing"]),
        ("zwölf\n汉字".encode(), ["zwölf", "汉字"]),
    ],
)
async def test_every_line_that_says_something_comes_once(
    typed: Callable[[bytes], None], content: bytes, lines: list[str]
) -> None:
    typed(content)
    piped = PipedLines()
    found = []
    while (line := await piped.next()) is not None:
        found.append(line)
    assert found == lines


@pytest.mark.parametrize(
    ("content", "byte"), [(b"one\ntwo \xff\nthree\n", 8), ("one\nzwölf ".encode() + b"\xc3", 11)]
)
async def test_what_is_not_utf_8_is_refused_where_it_comes(
    typed: Callable[[bytes], None], content: bytes, byte: int
) -> None:
    typed(content)
    piped = PipedLines()
    assert await piped.next() == "one"
    with pytest.raises(InvalidError, match=f"standard input: is not UTF-8 at byte {byte}$"):
        await piped.next()
    assert await piped.next() is None
