"""The operations that make and delete whole sessions."""

from hector.domain.ids import SessionKey
from hector.storage import statements as sql
from hector.storage.operations import Operation, execute
from hector.storage.reading import key_parameters
from hector.storage.rows import insert_session, lock


def create(key: SessionKey) -> Operation[bool]:
    """Make an empty session; False if it exists."""
    names = key_parameters(key)
    if (yield from lock(names)):
        return False
    yield from insert_session(names | {"replica": None, "turn": None, "epoch": 0, "seq": 0})
    return True


def delete(key: SessionKey) -> Operation[bool]:
    """Remove a session and every row that belongs to it; False if there was none.

    Its tombstone outlives it, so that what is kept elsewhere under its incarnation can be removed as well. A
    replica that runs one of its turns finds the turn gone at its next guarded write or beat.
    """
    names = key_parameters(key)
    row = yield from lock(names)
    if row is None:
        return False
    yield from execute(sql.INSERT_TOMBSTONE, names | {"incarnation": row.incarnation})
    for statement in sql.DELETE_SESSION:
        yield from execute(statement, names)
    return True
