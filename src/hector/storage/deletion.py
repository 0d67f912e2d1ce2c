"""The operations that make and delete whole sessions."""

from hector.domain.ids import SessionKey
from hector.storage import statements as sql
from hector.storage.operations import Operation, execute
from hector.storage.reading import key_parameters
from hector.storage.rows import insert_session, lock


def create(key: SessionKey, incarnation: str) -> Operation[bool]:
    """Make an empty session; False if it exists, and not by an earlier run of this operation."""
    names = key_parameters(key)
    if row := (yield from lock(names)):
        return row.incarnation == incarnation
    yield from insert_session(names | {"replica": None, "turn": None, "epoch": 0, "seq": 0}, incarnation)
    return True


def delete(key: SessionKey, before: str | None) -> Operation[str | None]:
    """Remove a session and every row that belongs to it; its incarnation, or None if there was none.

    Its tombstone outlives it, so that what is kept elsewhere under its incarnation can be removed as well. A
    replica that runs one of its turns finds the turn gone at its next guarded write or beat.
    """
    names = key_parameters(key)
    row = yield from lock(names)
    if row is None or before not in (None, row.incarnation):
        # The one that was meant is gone, by an earlier run of this operation or by somebody else.
        return before
    yield from execute(sql.INSERT_TOMBSTONE, names | {"incarnation": row.incarnation})
    for statement in sql.DELETE_SESSION:
        yield from execute(statement, names)
    return row.incarnation
