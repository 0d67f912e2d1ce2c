"""The operations of summaries, which stand beside the messages that they cover."""

from hector.domain.ids import SessionKey
from hector.domain.memory import Summary, Tail, TailLimit
from hector.domain.summaries import Snapshot
from hector.storage import statements as sql
from hector.storage.codec import storable
from hector.storage.operations import Operation, execute, fetch
from hector.storage.reading import key_parameters, latest_summary, read_tail, turn_row


def snapshot(key: SessionKey, limit: TailLimit) -> Operation[Snapshot | None]:
    """What has ended of a session, without the bytes of files; None if there is no such session."""
    names = key_parameters(key)
    rows = yield from fetch(sql.SUMMARY_STATE, names)
    if not rows:
        return None
    incarnation, last_seq, summarized, running = rows[0]
    before = last_seq + 1
    if running and (turn := (yield from turn_row(key.agent_id, key.user_id, running))):
        # Only that turn adds to the session; of what it said before it was paused others know.
        before = turn.first_seq or before
    tail = yield from read_tail(names, before=before, summarized=summarized, limit=limit, with_files=False)
    return Snapshot(incarnation, tail)


def add_summary(
    key: SessionKey, incarnation: str, made_from: Summary | None, summary: Summary
) -> Operation[bool]:
    names = key_parameters(key) | {
        "incarnation": incarnation,
        "covered": made_from.through_seq if made_from else 0,
        "through_seq": summary.through_seq,
        "content": storable(summary.text),
        "tokens": summary.tokens,
    }
    if (yield from execute(sql.COVER, names)) == 1:
        yield from execute(sql.INSERT_SUMMARY, names)
        return True
    # It may have been kept by an earlier run, whose commit got no answer.
    rows = yield from fetch(sql.SUMMARY_STATE, names)
    latest = (yield from latest_summary(names)) if rows and rows[0][0] == incarnation else None
    return latest is not None and (latest.through_seq, latest.text) == (
        names["through_seq"],
        names["content"],
    )


def read_context(key: SessionKey, before: int | None, limit: TailLimit) -> Operation[Tail]:
    names = key_parameters(key)
    rows = yield from fetch(sql.SUMMARY_STATE, names)
    if not rows:
        return Tail()
    _, last_seq, summarized, _ = rows[0]
    before = last_seq + 1 if before is None else before
    return (yield from read_tail(names, before=before, summarized=summarized, limit=limit))
