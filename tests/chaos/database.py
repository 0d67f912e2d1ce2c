"""The tables as anybody may read them who knows nothing of Hector's code: which rows, and what they are."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.history import Place, ToolCall, ToolResult

USER, AGENT, NEITHER = 1, 2, 0


class SessionRow(NamedTuple):
    last_seq: int
    next_ticket: int
    waiting: int
    lease_owner: str | None
    lease_turn_id: str | None


class TurnRow(NamedTuple):
    id: str
    state: str
    reason: str | None
    superseded: bool
    first_seq: int | None
    last_seq: int | None
    replica_id: str | None
    attempt: int
    earlier_runs: tuple[tuple[int, int], ...] = ()
    """First and last seq of each that a pause ended."""


class MessageRow(NamedTuple):
    turn_id: str
    seq: int | None
    message_id: str | None
    retry: int
    role: int
    text: str
    ticket: int | None
    run_state: str | None
    unanswered: str | None
    calls: tuple[ToolCall, ...] = ()
    """What the agent called."""
    harmless: tuple[bool, ...] = ()
    """Whether each of them is stored as one that may be made again."""
    result: ToolResult | None = None
    failed: bool = False
    """The result is an error."""

    @property
    def waits(self) -> bool:
        return self.seq is None and self.run_state is None


@dataclass(slots=True)
class PlaceRows:
    session: SessionRow | None = None
    turns: dict[str, TurnRow] = field(default_factory=dict)
    messages: list[MessageRow] = field(default_factory=list)
    """In the order in which they were stored."""


@dataclass(slots=True)
class Snapshot:
    """One consistent look. It was taken after `since` and before `until`."""

    since: float
    until: float
    places: dict[Place, PlaceRows]
    replicas: list[str]

    def at(self, place: Place) -> PlaceRows:
        return self.places.get(place) or PlaceRows()

    @property
    def open_turns(self) -> int:
        return sum(
            turn.state in ("working", "submitted")
            for rows in self.places.values()
            for turn in rows.turns.values()
        )


TABLES = ("sessions", "turns", "messages", "replicas", "tombstones")

_SESSIONS = """
  SELECT agent_id, user_id, id, last_seq, next_ticket, waiting, lease_owner, lease_turn_id FROM sessions"""
_TURNS = """
  SELECT agent_id, user_id, session_id, id, state, reason, superseded, first_seq, last_seq, replica_id,
    attempt, earlier_runs
  FROM turns"""
_MESSAGES = """
  SELECT agent_id, user_id, session_id, turn_id, seq, message_id, retry, role, content, ticket, run_state,
    unanswered
  FROM messages"""
_REPLICAS = "SELECT id FROM replicas"

_ORPHANS = """
  SELECT count(*) FROM {table} t LEFT JOIN {other} o ON o.agent_id = t.agent_id AND o.user_id = t.user_id
    AND o.id = t.{column} WHERE o.id IS NULL"""
_TWINS = """
  SELECT count(*) FROM (
    SELECT 1 FROM {table} WHERE {last} IS NOT NULL GROUP BY {key} HAVING count(*) > 1) twins"""

KEYS: Mapping[str, str] = {
    "messages are of no session": _ORPHANS.format(table="messages", other="sessions", column="session_id"),
    "messages are of no turn": _ORPHANS.format(table="messages", other="turns", column="turn_id"),
    "turns are of no session": _ORPHANS.format(table="turns", other="sessions", column="session_id"),
    "sessions are there twice": _TWINS.format(table="sessions", key="agent_id, user_id, id", last="id"),
    "turns are there twice": _TWINS.format(table="turns", key="agent_id, user_id, id", last="id"),
    "sequence numbers are there twice": _TWINS.format(
        table="messages", key="agent_id, user_id, session_id, seq", last="seq"
    ),
    "message ids are there twice": _TWINS.format(
        table="messages", key="agent_id, user_id, session_id, message_id, retry", last="message_id"
    ),
}
"""What must not be, whatever keys the tables declare, and a query that counts it."""


def queries(only: Collection[Place] | None) -> Sequence[str]:
    """What `assemble` needs: everything, or what belongs to some places."""
    return (
        _SESSIONS + _where("id", only),
        _TURNS + _where("session_id", only),
        _MESSAGES + _where("session_id", only) + " ORDER BY id",
        _REPLICAS,
    )


def assemble(since: float, until: float, found: Sequence[Sequence[tuple[Any, ...]]]) -> Snapshot:
    """From the rows of each of the queries, which saw one state of the database."""
    sessions, turns, messages, replicas = found
    places: defaultdict[Place, PlaceRows] = defaultdict(PlaceRows)
    for row in sessions:
        places[Place(*row[:3])].session = SessionRow(*row[3:])
    for row in turns:
        turn = TurnRow(*row[3:])
        earlier = tuple((first, last) for first, last in json.loads(str(turn.earlier_runs or "[]")))
        places[Place(*row[:3])].turns[turn.id] = turn._replace(earlier_runs=earlier)
    for row in messages:
        places[Place(*row[:3])].messages.append(_read(MessageRow(*row[3:])))
    return Snapshot(since, until, dict(places), [replica for (replica,) in replicas])


def _where(session: str, only: Collection[Place] | None) -> str:
    if only is None:
        return ""
    ours = (
        f"(agent_id = {_literal(agent)} AND user_id = {_literal(user)} AND {session} = {_literal(name)})"
        for agent, user, name in sorted(only)
    )
    return f" WHERE {' OR '.join(ours) or '1 = 0'}"


def _literal(name: str) -> str:
    assert re.fullmatch(r"[a-z0-9.]+", name), "the suite chooses names that mean nothing to SQL"
    return f"'{name}'"


def _read(row: MessageRow) -> MessageRow:
    """With what its content says."""
    parts = json.loads(row.text)
    calls = [part["tool_call"] for part in parts if "tool_call" in part]
    results = [part["tool_result"] for part in parts if "tool_result" in part]
    return row._replace(
        text="".join(part["text"] for part in parts if "text" in part),
        calls=tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in calls),
        harmless=tuple(call.get("idempotent", False) for call in calls),
        result=ToolResult(results[0]["call_id"], results[0]["text"]) if results else None,
        failed=any(result.get("is_error", False) for result in results),
    )
