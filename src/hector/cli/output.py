"""What commands write: text that does no harm to a terminal, to readers that may be slow or gone."""

import asyncio
import os
import sys

from hector.domain.errors import HectorError

_HARMLESS = {"\n", "\t"}
_CONTROLS = {
    code: "" if chr(code) == "\r" else f"\\x{code:02x}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in _HARMLESS
}
_LINE_CONTROLS = _CONTROLS | {ord(char): repr(char)[1:-1] for char in "\n\r\t"}


def visible(text: str) -> str:
    """Without control sequences: what others wrote must not steer the terminal of whoever reads it."""
    return text.translate(_CONTROLS)


def visible_id(text: str) -> str:
    """As `visible`, on one line: an id with a line break in it must not pass for a line of ours."""
    return text.translate(_LINE_CONTROLS)


def note(text: str) -> None:
    """For people, beside the output."""
    print(visible(text), file=sys.stderr, flush=True)


def complain(error: HectorError | str) -> None:
    note(f"Error: {error}")


def count(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def close_output() -> None:
    """After the reader has gone: what is still in a buffer goes nowhere, without a complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Output:
    """Standard output, written beside the event loop, so that a slow reader holds up no heartbeat.

    When the reader has gone, what is written is dropped: the turn that it told of goes on to its end.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._gone = False

    async def write(self, text: str) -> None:
        if self._gone or not text:
            return
        try:
            await asyncio.to_thread(_write, visible(text) if self.is_terminal else text)
        except BrokenPipeError:
            self._gone = True
            close_output()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
