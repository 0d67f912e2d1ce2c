"""What a worker and the process that started it tell each other: lines of JSON over a socket of their own."""

import json
from dataclasses import asdict, dataclass
from typing import TypeAlias, assert_never

from hector.cli.settings import Options, Source


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first and only thing that a worker is told. Its descriptors are inherited."""

    worker: int
    """From 1."""
    source: Source
    sockets: tuple[int, ...]
    """Descriptors of the sockets that listen for HTTP."""
    grpc: int
    """The port of gRPC, which is kept for all."""
    counts: int
    """Descriptor of the file behind `Counts`."""
    at_once: bool
    """Accept before the stores are open."""


@dataclass(frozen=True, slots=True)
class Ready:
    """It serves requests."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It ends, for a reason that people can be told."""

    status: int
    lines: tuple[str, ...]


Report: TypeAlias = Ready | Failed


def encode_assignment(assignment: Assignment) -> bytes:
    return json.dumps(asdict(assignment)).encode() + b"\n"


def decode_assignment(line: bytes) -> Assignment:
    value = json.loads(line)
    source = value["source"]
    return Assignment(
        worker=value["worker"],
        source=Source(source["file"], source["text"], Options(**source["options"])),
        sockets=tuple(value["sockets"]),
        grpc=value["grpc"],
        counts=value["counts"],
        at_once=value["at_once"],
    )


def encode_report(report: Report) -> bytes:
    value: dict[str, object]
    match report:
        case Ready():
            value = {"ready": True}
        case Failed(status, lines):
            value = {"status": status, "lines": lines}
        case _:
            assert_never(report)
    return json.dumps(value).encode() + b"\n"


def decode_report(line: bytes) -> Report:
    value = json.loads(line)
    return Ready() if "ready" in value else Failed(value["status"], tuple(value["lines"]))
