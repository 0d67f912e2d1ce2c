"""Servers that say what no real one can be brought to say in a test, or what only an attacker would."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Talk: TypeAlias = Callable[["Line"], Awaitable[None]]


@dataclass(slots=True)
class Impostor:
    port: int
    heard: bytearray
    """What clients said, all of them; decrypted where there was TLS."""


class Line:
    """To one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray) -> None:
        self._reader, self._writer, self._heard = reader, writer, heard
        self._sequence = 0

    async def hear(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self._heard += data
        return data

    async def hear_some(self) -> bytes:
        data = await self._reader.read(65536)
        self._heard += data
        return data

    async def hear_startup(self) -> bytes:
        """PostgreSQL's first message, which has no type."""
        (size,) = struct.unpack("!i", await self.hear(4))
        return await self.hear(size - 4)

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear_packet(self) -> bytes:
        """MySQL's."""
        header = await self.hear(4)
        self._sequence = header[3] + 1
        return await self.hear(int.from_bytes(header[:3], "little"))

    def say_packet(self, payload: bytes) -> None:
        self.say(len(payload).to_bytes(3, "little") + bytes([self._sequence]) + payload)
        self._sequence += 1


@asynccontextmanager
async def impostor(talk: Talk, path: Path | None = None) -> AsyncIterator[Impostor]:
    """Listens on a port, or on a Unix socket."""
    found = Impostor(0, bytearray())
    lines: set[asyncio.StreamWriter] = set()
    talks: set[asyncio.Future[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.add(writer)
        done = asyncio.get_running_loop().create_future()
        talks.add(done)
        try:
            await talk(Line(reader, writer, found.heard))
        except (EOFError, ConnectionError):
            pass  # the client has heard enough
        finally:
            writer.transport.abort()
            done.set_result(None)

    if path:
        server: asyncio.Server = await asyncio.start_unix_server(serve, path)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in lines:
            writer.transport.abort()
        await asyncio.gather(*talks)


# --- what listens on a port that was taken for another


async def says_nothing(line: Line) -> None:
    while await line.hear_some():
        pass


async def hangs_up(line: Line) -> None:
    pass


async def web_server(line: Line) -> None:
    await line.hear_some()
    line.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


async def secure_shell(line: Line) -> None:
    line.say(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await says_nothing(line)


# --- PostgreSQL


def postgres_that_refuses(code: str, text: str) -> Talk:
    """Without TLS, and before any sign-in."""

    async def talk(line: Line) -> None:
        if len(await line.hear_startup()) == 4:  # asks for TLS
            line.say(b"N")
            await line.hear_startup()
        fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
        body = b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields.items()) + b"\0"
        line.say(b"E" + struct.pack("!i", len(body) + 4) + body)

    return talk


async def postgres_that_hangs_up_in_the_handshake(line: Line) -> None:
    await line.hear_startup()
    line.say(b"S")
    await line.hear_some()


def postgres_that_signs_in_by(method: int) -> Talk:
    """As its protocol numbers them; without TLS."""

    async def talk(line: Line) -> None:
        if len(await line.hear_startup()) == 4:
            line.say(b"N")
            await line.hear_startup()
        line.say(b"R" + struct.pack("!ii", 8, method))
        await says_nothing(line)

    return talk


# --- MySQL

_SALT = b"12345678", b"abcdefghijkl"
# As a MySQL 8.0 says it, without DEPRECATE_EOF; with CONNECT_WITH_DB, PLUGIN_AUTH and the like.
_CAPABILITIES = 0x00BFF7FF
_SSL = 0x00000800
_REQUEST_FOR_TLS = 4 + 32
"""Bytes of that packet."""
FULL_AUTHENTICATION = b"\x01\x04"
"""caching_sha2_password: the server does not know the password's hash, and wants it."""
OK = b"\0\0\0\x02\0\0\0"


def greeting(plugin: str, *, tls: bool, version: str = "8.0.36") -> bytes:
    capabilities = _CAPABILITIES | (_SSL if tls else 0)
    return (
        b"\x0a"
        + version.encode()
        + b"\0"
        + struct.pack("<I", 7)
        + _SALT[0]
        + b"\0"
        + struct.pack("<HBHHB", capabilities & 0xFFFF, 255, 2, capabilities >> 16, 21)
        + bytes(10)
        + _SALT[1]
        + b"\0"
        + plugin.encode()
        + b"\0"
    )


def switch_to(plugin: str, data: bytes = _SALT[0] + _SALT[1] + b"\0") -> bytes:
    return b"\xfe" + plugin.encode() + b"\0" + data


def failure(number: int, text: str) -> bytes:
    return b"\xff" + struct.pack("<H", number) + b"#HY000" + text.encode()


async def mysql_that_hangs_up_in_the_handshake(line: Line) -> None:
    line.say_packet(greeting("mysql_native_password", tls=True))
    await line.hear_packet()
    await line.hear_some()


def mysql_that_says(*answers: bytes, plugin: str = "mysql_native_password", tls: bool = False) -> Talk:
    """An answer for each packet that comes after the greeting."""

    async def talk(line: Line) -> None:
        line.say_packet(greeting(plugin, tls=tls))
        for answer in answers:
            await line.hear_packet()
            line.say_packet(answer)
        await says_nothing(line)

    return talk


def mysql_that_refuses(number: int, text: str) -> Talk:
    """In the place of its greeting."""

    async def talk(line: Line) -> None:
        line.say_packet(failure(number, text))
        await says_nothing(line)

    return talk


@asynccontextmanager
async def mysql_with_tls(context: ssl.SSLContext, *answers: bytes, plugin: str) -> AsyncIterator[Impostor]:
    """An answer for each packet that comes through TLS, of one client."""
    loop = asyncio.get_running_loop()
    # A stream would take more than the request for TLS, which the client's part of the handshake follows.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    found = Impostor(listener.getsockname()[1], bytearray())

    async def serve() -> None:
        client, _ = await loop.sock_accept(listener)
        first = greeting(plugin, tls=True)
        await loop.sock_sendall(client, len(first).to_bytes(4, "little") + first)
        request = b""
        while len(request) < _REQUEST_FOR_TLS:
            request += await loop.sock_recv(client, _REQUEST_FOR_TLS - len(request))
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=context)
        line = Line(reader, asyncio.StreamWriter(transport, protocol, reader, loop), found.heard)
        try:
            for answer in answers:
                await line.hear_packet()
                line.say_packet(answer)
            await says_nothing(line)
        finally:
            transport.abort()

    task = asyncio.create_task(serve())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


def mysql_with_variables(variables: Mapping[str, str]) -> Talk:
    """Admits everybody, answers the first question with these, and all others with OK."""

    async def talk(line: Line) -> None:
        line.say_packet(greeting("mysql_native_password", tls=False))
        await line.hear_packet()
        line.say_packet(OK)
        await line.hear_packet()
        _say_rows(line, ("Variable_name", "Value"), list(variables.items()))
        while True:
            await line.hear_packet()
            line.say_packet(OK)

    return talk


def _say_rows(line: Line, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    end = b"\xfe\0\0\x02\0"
    line.say_packet(bytes([len(columns)]))
    for column in columns:
        names = b"".join(map(_text, ("def", "", "", "", column, column)))
        line.say_packet(names + b"\x0c" + struct.pack("<HIBHB", 255, 1024, 253, 0, 0) + bytes(2))
    line.say_packet(end)
    for row in rows:
        line.say_packet(b"".join(map(_text, row)))
    line.say_packet(end)


def _text(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()
