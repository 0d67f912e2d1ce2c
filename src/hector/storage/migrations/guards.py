"""What is there already: asked before each change, so that a revision can be repeated.

MySQL commits each change of the schema by itself. A kill between the change and the note of it in the version
table leaves a revision that was made and is not noted, and that the next start makes again.
"""

from alembic import op
from sqlalchemy import inspect


def has_table(table: str) -> bool:
    return inspect(op.get_bind()).has_table(table)


def has_column(table: str, column: str) -> bool:
    return column in {each["name"] for each in inspect(op.get_bind()).get_columns(table)}


def has_index(table: str, index: str) -> bool:
    """Or a unique constraint, which is one of MySQL's indexes."""
    return inspect(op.get_bind()).has_index(table, index)
