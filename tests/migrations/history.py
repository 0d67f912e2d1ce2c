"""Histories for tests: a later one than the shipped one, and what a schema of either looks like."""

from pathlib import Path

from sqlalchemy import Column, Index, Integer, MetaData, String, Table

from hector.storage.migrate import HECTOR, History


def _tables_to_come() -> MetaData:
    made = MetaData()
    for table in HECTOR.metadata.sorted_tables:
        table.to_metadata(made)
    sessions, turns = made.tables["sessions"], made.tables["turns"]
    sessions.append_column(Column("title", String(100)))
    sessions.indexes.discard(
        next(each for each in sessions.indexes if each.name == "idx_sessions_updated_at")
    )
    Index("idx_turns_state", turns.c.state)
    Table("notes", made, Column("id", Integer, primary_key=True, autoincrement=False))
    return made


LATER = History("9007", _tables_to_come(), [*HECTOR.versions, str(Path(__file__).parent / "later")])
"""As if Hector had gone on: each kind of change once, a revision each."""
