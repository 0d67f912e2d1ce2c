"""What others wrote steers no terminal."""

import pytest

from hector.cli.output import count, visible, visible_id


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï, 汉字, 💾", "plain, ünï, 汉字, 💾"),
        ("two\n\tlines", "two\n\tlines"),
        ("ends\r\nlike this", "ends\nlike this"),
        ("over\rwritten", "overwritten"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("\x00\x7f", "\\x00\\x7f"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("汉字 1", "汉字 1"), ("a\nb", "a\\nb"), ("a\r\tb", "a\\r\\tb"), ("\x1b[2J", "\\x1b[2J")],
)
def test_an_id_stays_on_its_line(text: str, shown: str) -> None:
    assert visible_id(text) == shown


@pytest.mark.parametrize(("number", "words"), [(0, "0 turns"), (1, "1 turn"), (2, "2 turns")])
def test_one_is_singular(number: int, words: str) -> None:
    assert count(number, "turn") == words
