"""An OS lock for each replica on a file: who holds it lives."""

import contextlib
import fcntl
import glob
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from hector.domain.replicas import ReplicaRow

_FRESH = 60.0
"""Seconds in which a replica that starts has surely locked the file that it made."""


class ReplicaLocks:
    """A lock file beside the database for each replica; the OS frees it however the process ends.

    Implements `domain.ReplicaLocks`.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: dict[str, int] = {}

    def hold(self, replica_id: str) -> None:
        descriptor = os.open(self._path(replica_id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[replica_id] = descriptor

    def release(self, replica_id: str) -> None:
        descriptor = self._held.pop(replica_id, None)
        if descriptor is not None:
            self._path(replica_id).unlink(missing_ok=True)
            os.close(descriptor)

    async def freed(self, replicas: Sequence[ReplicaRow]) -> Collection[str]:
        return {replica.id for replica in replicas if self.is_free(replica.id)}

    def stillness(self, ttl: float) -> float:
        return 0.0  # that process is gone

    def is_free(self, replica_id: str) -> bool:
        """Nobody holds it: that replica's process is gone."""
        try:
            descriptor = os.open(self._path(replica_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # It is made before the replica's row, and removed after it, or by whoever declared it dead.
            return True
        except PermissionError:
            return False  # another user's: only its counter can tell
        try:
            # Shared, so that two who look at once do not take one another for its holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, replica_id: str) -> None:
        """Remove what a dead replica left."""
        self._path(replica_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what replicas left that died before they had a row."""
        for path in self._path("").parent.glob(f"{glob.escape(self._path('').name)}*"):
            with contextlib.suppress(OSError):
                # A fresh one may be about to be locked.
                if time.time() - path.stat().st_mtime > _FRESH and self.is_free(
                    path.name[len(self._path("").name) :]
                ):
                    path.unlink()

    def _path(self, replica_id: str) -> Path:
        return self._database.with_name(f"{self._database.name}-replica-{replica_id}")
