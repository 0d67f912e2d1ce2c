"""How Alembic runs here: on the connection that it is given, inside that connection's transaction."""

from alembic import context

from hector.storage.migrate import VERSION_TABLE
from hector.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=False,  # the caller has begun, and commits
)
context.run_migrations()
