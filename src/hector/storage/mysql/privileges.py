"""What a MySQL or MariaDB user needs beyond serving: to make the tables, and to change them."""

from collections.abc import Mapping

import asyncmy

from hector.domain.errors import StorageError
from hector.storage.grants import PRIVILEGES, literal, quoted
from hector.storage.migrate import Step

TO_MIGRATE = (*PRIVILEGES, "CREATE", "ALTER", "INDEX", "REFERENCES", "DROP")
"""Whatever a release may have to do, to serve among it."""

_NEEDED: Mapping[Step, tuple[str, ...]] = {
    "nothing": (),
    "create": (*PRIVILEGES, "CREATE", "INDEX", "REFERENCES"),
    "create again": (*PRIVILEGES, "CREATE", "INDEX", "REFERENCES", "DROP"),
    "start afresh": (*PRIVILEGES, "CREATE", "INDEX", "REFERENCES", "DROP"),
    # Each release differs; none can do without this one.
    "migrate": (*PRIVILEGES, "ALTER"),
}
_WHO = "SELECT CURRENT_USER(), CURRENT_ROLE()"
# A name in which % and _ stand for others is a pattern here as it is there; what is held for one table may be
# held for the one in question.
_HELD = """
SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = {grantee}
UNION SELECT privilege_type FROM information_schema.schema_privileges
WHERE grantee = {grantee} AND {database} LIKE table_schema
UNION SELECT privilege_type FROM information_schema.table_privileges
WHERE grantee = {grantee} AND table_schema = {database}"""


async def check_may_change(
    connection: asyncmy.Connection, database: str, step: Step, *, is_mariadb: bool
) -> None:
    """Raises `StorageError` if the user surely may not.

    What a role gives, or everybody has, is not looked at: with such, the start itself finds out.
    """
    async with connection.cursor() as cursor:
        await cursor.execute(_WHO)
        account, role = await cursor.fetchone()
        await cursor.execute("SHOW GRANTS")
        # MariaDB knows it since 10.11, and keeps it out of the tables that are asked below.
        public = any(" TO PUBLIC" in grant for (grant,) in await cursor.fetchall())
        if public or role not in (None, "", "NONE"):
            return
        user, _, host = account.rpartition("@")
        # As these tables write it: what is in a name is not escaped.
        grantee = literal(f"'{user}'@'{host}'")
        await cursor.execute(_HELD.format(grantee=grantee, database=literal(database)))
        held = {privilege for (privilege,) in await cursor.fetchall()}
    if is_mariadb:
        held.add("REFERENCES")  # for which any other privilege does there
    if lacks := [privilege for privilege in _NEEDED[step] if privilege not in held]:
        raise StorageError(
            f"its tables are to be {'changed' if step == 'migrate' else 'made'}, and its user {account!r}"
            f" lacks {', '.join(lacks)} on database {database!r}; {remedy(account, database)}"
        )


def remedy(account: str, database: str) -> str:
    """What lets an account, as CURRENT_USER() gives it, make and change the tables."""
    user, _, host = account.rpartition("@")
    return (
        "let a user that may run `hector db migrate`, or an administrator:"
        f" GRANT {', '.join(TO_MIGRATE)} ON {quoted(database, '`')}.*"
        f" TO {literal(user)}@{literal(host)};"
    )
