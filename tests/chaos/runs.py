"""The messages of a session as the runs of its turns: each a message of a user and what the agent did."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.database import AGENT, NEITHER, USER, MessageRow, PlaceRows, TurnRow
from tests.chaos.history import Line, parse_key, parse_reply, parse_step
from tests.chaos.ledger import parse_questions, parse_result

OPEN = frozenset({"submitted", "working"})
PAUSED = frozenset({"input_required"})
ANSWERED = PAUSED | {"completed"}
"""How a run ends that said something to its user."""
UNKNOWN = "tool_unknown"
"""The reason of a turn that nobody may run again unasked."""
WAITING_FOR_INPUT = "waiting for input"


def is_settled(state: str, reason: str | None) -> bool:
    """A repeat of a message that was answered so gets the same answer."""
    return state in ANSWERED or reason == UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    turn_id: str
    turn: TurnRow | None
    rows: Sequence[MessageRow]
    """By seq; the user's message first, if nothing is wrong."""
    is_last: bool
    """Of its turn; those before it were ended by a pause."""

    @property
    def asked(self) -> MessageRow:
        return self.rows[0]

    @property
    def seq(self) -> int:
        return self.asked.seq or 0

    @property
    def state(self) -> str | None:
        return (self.turn and self.turn.state) if self.is_last else self.asked.run_state

    @property
    def reason(self) -> str | None:
        return (self.turn and self.turn.reason) if self.is_last else WAITING_FOR_INPUT

    @property
    def reply(self) -> str:
        """What the agent said to the user at the end."""
        last = self.rows[-1]
        return last.text if last.role == AGENT and not last.calls else ""

    @property
    def lines(self) -> Sequence[Line]:
        return lines_of(self.rows)


def successors(rows: PlaceRows) -> dict[str, str]:
    """Superseded turn -> the one in its place, which took its last message again and has its earlier runs."""
    tries = {(row.text, row.retry): row for row in rows.messages if row.role == USER}
    found = {}
    for (text, retry), row in tries.items():
        last = tries.get((text, retry - 1))
        # Where its turn went on after it, or never took it, others decide.
        if last is None or last.seq is None or last.run_state is not None:
            continue
        turn = rows.turns.get(last.turn_id)
        if turn and turn.superseded and row.turn_id in rows.turns:
            found[turn.id] = row.turn_id
    return found


def runs_of(rows: PlaceRows) -> list[Run]:
    """Those that have begun, by seq."""
    by_turn: dict[str, list[list[MessageRow]]] = {}
    for row in sorted((row for row in rows.messages if row.seq is not None), key=lambda row: row.seq or 0):
        runs = by_turn.setdefault(row.turn_id, [])
        if row.role == USER or not runs:
            runs.append([])
        runs[-1].append(row)
    found = [
        Run(turn_id, rows.turns.get(turn_id), run, run is runs[-1])
        for turn_id, runs in by_turn.items()
        for run in runs
    ]
    return sorted(found, key=lambda run: run.seq)


def lines_of(rows: Sequence[MessageRow]) -> list[Line]:
    """As the model is sent them: the results right after their calls, in the calls' order."""
    results = {row.result.call_id: row.result for row in rows if row.result}
    lines: list[Line] = []
    for row in rows:
        if row.role == USER:
            lines.append(Line("user", row.text))
        elif row.role == AGENT:
            lines.append(Line("assistant", row.text, calls=row.calls))
            told = [results[call.id] for call in row.calls if call.id in results]
            lines += [Line("tool", result.text, call_id=result.call_id) for result in told]
    return lines


def is_question(row: MessageRow) -> bool:
    """The agent said it for a tool; the model did not."""
    return row.role == AGENT and not row.calls and parse_questions(row.text) is not None


def model_call_of(row: MessageRow) -> int | None:
    """In which of its calls the model said that; None if it did not, or said two things."""
    said = parse_step(row.text) if row.calls else parse_reply(row.text)
    numbers = {said.call} if said else set[int]()
    for call in row.calls:
        key = parse_key(call.key)
        numbers.add(key.call if key else 0)
    return numbers.pop() if len(numbers) == 1 else None


def fault_of(run: Run) -> str | None:
    """What is wrong with the order of its messages."""
    missing: set[str] = set()
    answered = False
    for row in run.rows[1:]:
        if answered:
            return "goes on after its answer"
        if row.role == NEITHER:
            if row.result is None or row.result.call_id not in missing:
                return "has a result that nobody waits for"
            missing.discard(row.result.call_id)
        elif missing:
            return "goes on without the results of its calls"
        else:
            missing = {call.id for call in row.calls}
            answered = not row.calls
    if run.state in PAUSED and not is_question(run.rows[-1]):
        return "waits for an answer to nothing"
    if run.asked.role != USER:
        return "begins without a user's message"
    if answered != (run.state in ANSWERED):
        return f"is {run.state}, answered: {answered}"
    return None


def texts_of(row: MessageRow) -> Iterator[str | None]:
    """The client's texts that a message is, or has to do with; None for what nobody can have said."""
    if row.role == USER:
        yield row.text
    elif row.role == AGENT:
        yield from _texts(row.text, [call.key for call in row.calls])
    else:
        yield _text_of_result(row.result.text if row.result else "")


def texts_of_line(line: Line) -> Iterator[str | None]:
    """The same, of what a model was sent."""
    if line.role == "assistant":
        yield from _texts(line.text, [call.key for call in line.calls])
    elif line.role == "tool":
        yield _text_of_result(line.text)
    else:
        yield line.text


def _texts(said: str, keys: Sequence[str]) -> Iterator[str | None]:
    for key in map(parse_key, keys):
        yield key.text if key else None
    questions = None if keys else parse_questions(said)
    if questions is not None:
        for asked in questions:
            key = parse_key(asked.key)
            yield key.text if key else None
        return
    found = parse_step(said) if keys else parse_reply(said)
    if said or not keys:
        yield found.text if found else None


def _text_of_result(text: str) -> str | None:
    told = parse_result(text)
    key = parse_key(told.key) if told else None
    return key.text if key else None
