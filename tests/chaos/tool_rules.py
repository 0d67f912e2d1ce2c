"""Compares what tools did with what is stored of their calls; pure."""

from collections.abc import Iterator, Mapping

from tests.chaos.anomalies import Kind
from tests.chaos.database import AGENT, PlaceRows
from tests.chaos.history import PlaceHistory, ToolCall, parse_key
from tests.chaos.ledger import ASKS, SIDE_EFFECTS, parse_questions, parse_result
from tests.chaos.runs import UNKNOWN, Run, is_question, runs_of
from tests.chaos.servers import ON_CRASH

_NEVER_RUN_ON = {agent for agent, turns in ON_CRASH.items() if turns.get("on_crash") == "fail"}


def anomalies(told: PlaceHistory, rows: PlaceRows, since: float, until: float) -> Iterator[tuple[Kind, str]]:
    """Of one session, of which the rows were read between these times."""
    calls = {call.key: call for row in rows.messages for call in row.calls}
    yield from _runs(told, calls, since, until)
    yield from _declarations(rows)
    yield from _results(told, rows)
    yield from _ends(rows)
    for run in runs_of(rows):
        yield from _questions(run)
    if told.place.agent in _NEVER_RUN_ON:
        yield from _attempts(rows)


def _runs(
    told: PlaceHistory, stored: Mapping[str, ToolCall], since: float, until: float
) -> Iterator[tuple[Kind, str]]:
    asked_for = {(name, key) for call in told.calls for name, key in call.asks_for}
    for key, runs in told.tool_runs.items():
        first = min(runs, key=lambda run: run.at)
        if len(runs) > 1 and first.tool in SIDE_EFFECTS:
            yield Kind.REPEATED, f"{first.tool}({key}) by {[(run.pid, run.at) for run in runs]}"
        if any((run.tool, key) not in asked_for for run in runs):
            yield Kind.FOREIGN, f"no model asked for {first.tool}({key})"
        call, parsed = stored.get(key), parse_key(key)
        is_stored = call is not None and call.name == first.tool
        sent = told.first_sent(parsed.text) if parsed else 0.0
        if first.at < since and not is_stored and not told.maybe_deleted(sent, until):
            yield Kind.UNSTORED, f"{first.tool}({key}) at {first.at:.3f} by {first.pid}, stored is {call}"


def _declarations(rows: PlaceRows) -> Iterator[tuple[Kind, str]]:
    for row in rows.messages:
        for call, harmless in zip(row.calls, row.harmless, strict=True):
            if harmless != (call.name not in SIDE_EFFECTS):
                yield Kind.UNSAFE, f"{call.name}({call.key}) is stored as harmless: {harmless}"


def _results(told: PlaceHistory, rows: PlaceRows) -> Iterator[tuple[Kind, str]]:
    calls = {(row.turn_id, call.id): call.key for row in rows.messages for call in row.calls}
    for row in rows.messages:
        if row.result is None:
            continue
        key = calls.get((row.turn_id, row.result.call_id), "")
        says = parse_result(row.result.text)
        ran = says and any(run.run == says.run for run in told.tool_runs.get(key, []))
        if row.failed or not says or says.key != key or not ran:
            yield Kind.RESULT, f"that of {key!r} is {row.result.text!r}"


def _questions(run: Run) -> Iterator[tuple[Kind, str]]:
    """Whoever was to be asked was asked, and nothing else came before the answer."""
    results = {row.result.call_id: parse_result(row.result.text) for row in run.rows if row.result}
    for place, row in enumerate(run.rows):
        wanted = [results.get(call.id) for call in row.calls if call.name == ASKS]
        said = next((later for later in run.rows[place + 1 :] if later.role == AGENT), None)
        if wanted and said and (not is_question(said) or parse_questions(said.text) != wanted):
            yield Kind.UNASKED, f"turn {run.turn_id} was to ask {wanted} and says {said.text!r}, {said.calls}"
        if said and is_question(said) and row.calls and not wanted:
            yield Kind.UNASKED, f"turn {run.turn_id} asks {said.text!r}, and no tool did"


def _ends(rows: PlaceRows) -> Iterator[tuple[Kind, str]]:
    unsafe = {row.turn_id for row in rows.messages for call in row.calls if call.name in SIDE_EFFECTS}
    for turn in rows.turns.values():
        if turn.state == "failed" and turn.id in unsafe and turn.reason != UNKNOWN:
            yield Kind.UNSAFE, f"turn {turn.id} is failed ({turn.reason})"
        if turn.reason == UNKNOWN and (turn.id not in unsafe or turn.state != "failed"):
            yield Kind.HARMLESS, f"turn {turn.id} is {turn.state} ({turn.reason})"


def _attempts(rows: PlaceRows) -> Iterator[tuple[Kind, str]]:
    for turn in rows.turns.values():
        # A run that answers a pause is an attempt, too.
        allowed = 1 + len(turn.earlier_runs)
        if turn.attempt > allowed:
            yield Kind.RUN_ON, f"turn {turn.id}, attempt {turn.attempt}, is {turn.state}"
