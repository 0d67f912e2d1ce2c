"""What a MySQL or MariaDB user needs beyond serving: to make the tables, and to change them."""

import asyncmy

from hector.domain.errors import StoreOpenError
from hector.storage.grants import literal, quoted
from hector.storage.settings import ServerSettings

TO_MIGRATE = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX", "REFERENCES", "DROP")

_WHO = "SELECT CURRENT_USER(), CURRENT_ROLE()"
_HELD = """
SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = {grantee}
UNION SELECT privilege_type FROM information_schema.schema_privileges
WHERE grantee = {grantee} AND {database} LIKE table_schema"""


async def check_may_migrate(connection: asyncmy.Connection, settings: ServerSettings) -> None:
    """Raises `StoreOpenError` if the user surely may not.

    What a role gives is not looked at: with one, the start itself finds out.
    """
    async with connection.cursor() as cursor:
        await cursor.execute(_WHO)
        account, role = await cursor.fetchone()
        if role not in (None, "", "NONE"):
            return
        user, _, host = account.rpartition("@")
        grantee = f"{literal(user)}@{literal(host)}"
        # The tables name an account by the text of its quoted parts.
        await cursor.execute(_HELD.format(grantee=literal(grantee), database=literal(settings.database)))
        held = {privilege for (privilege,) in await cursor.fetchall()}
    if lacks := [privilege for privilege in TO_MIGRATE if privilege not in held]:
        raise StoreOpenError(
            settings.store,
            f"its tables are to be made or changed, and its user {account!r} may not: it lacks"
            f" {', '.join(lacks)} on database {settings.database!r}; let a user that may run"
            f" `hector db migrate`, or an administrator {grant_to_migrate(settings, grantee)}",
        )


def grant_to_migrate(settings: ServerSettings, account: str | None = None) -> str:
    """The statement that lets the user make and change the tables."""
    if account is None:
        account = f"{literal(settings.user)}@'...'"
    return f"GRANT {', '.join(TO_MIGRATE)} ON {quoted(settings.database, '`')}.* TO {account};"
