"""How long a lock and an idle transaction may last on a server, the same on all kinds."""

from hector.storage.settings import ServerSettings

LOCK_TIMEOUT = 20.0
"""Seconds that a statement waits for a row that another transaction holds."""
IDLE_TRANSACTION_TIMEOUT = 10.0
"""Seconds after which the server ends a transaction whose client is silent.

Between two statements of a transaction nothing is awaited, so silence means that the replica was stopped, or
that its machine is gone and the network has not noticed. It must not hold the row of a session for so long.
Who waits for that row shall get it, rather than be told that it is locked: hence half of LOCK_TIMEOUT. A
process that is held up for longer loses a transaction, which its driver runs again.
"""


def lock_timeout(settings: ServerSettings) -> float:
    """Seconds. Below statement_timeout, so that a wait for a lock is not told as a slow statement."""
    return min(LOCK_TIMEOUT, settings.statement_timeout * 0.8)


def idle_transaction_timeout(settings: ServerSettings) -> float:
    """Seconds, with the same relation to `lock_timeout` whatever that is."""
    return min(IDLE_TRANSACTION_TIMEOUT, lock_timeout(settings) / 2)
