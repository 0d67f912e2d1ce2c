# ruff: noqa: SLF001  # asyncmy sends one command at a time; tests/databases/test_pipeline.py notices a change of it
"""Several prepared statements in one round trip.

The protocol lets a client send its next command before it was answered: the server takes one after the
other, and answers in their order.
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from asyncmy import errors
from asyncmy.connection import MySQLResult
from asyncmy.constants.COMMAND import COM_STMT_EXECUTE
from asyncmy.protocol import pack_binary_params

_ONE_PACKET = 2**24 - 1
"""Bytes; longer ones are sent in several."""
_NO_CURSOR_ONCE = b"\0\1\0\0\0"
"""A byte of flags, and the number of times, which is always 1."""


class Call(NamedTuple):
    statement: Any
    """asyncmy's `PreparedStatement`."""
    arguments: Sequence[Any]


async def execute_together(connection: Any, calls: Sequence[Call]) -> list[Any]:
    """The results, in order; if there are errors, the first, once all have been answered."""
    packets = [_packet(connection, call) for call in calls]
    if len(calls) == 1 or any(len(packet) >= _ONE_PACKET for packet in packets):
        return [await statement.execute(arguments) for statement, arguments in calls]
    connection._write_bytes(b"".join(packets))
    results = []
    first: Exception | None = None
    for statement, _ in calls:
        # Each answer counts on from the number of its command, which is 0.
        connection._next_seq_id = 1
        result: Any = MySQLResult(connection)
        try:
            await result.read_binary(statement)
            await statement._complete_result(connection, result)
        except errors.MySQLError as error:
            first = first or error
        results.append(result)
    if first:
        raise first
    return results


def _packet(connection: Any, call: Call) -> bytes:
    statement, arguments = call
    given = pack_binary_params(tuple(arguments), connection._encoding) if arguments else b""
    payload = struct.pack("<BI", COM_STMT_EXECUTE, statement._statement_id) + _NO_CURSOR_ONCE + given
    return struct.pack("<I", len(payload)) + payload
