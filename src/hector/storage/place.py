"""Where a SQLite database stands, or is to stand: what keeps its file from being opened or made there."""

import errno
import os
from pathlib import Path

from hector.domain.errors import StorageError

_NO_TEMPORARY_FILES = frozenset({errno.EINVAL, errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP})


def check_place(path: Path) -> None:
    """Of an absolute path; makes nothing. Raises `StorageError`, and `OSError` for what hides it."""
    folder = _nearest_folder(path)
    if not path.exists():
        _check_room(folder)
    elif path.is_dir():
        raise StorageError("is a directory; name a file in it")
    elif not path.is_file():
        raise StorageError("is a device, a pipe or a socket; name a file")
    elif not os.access(path, os.R_OK | os.W_OK):
        # SQLite opens what it may only read, and the first message is too late to find out.
        raise StorageError("the file is not writable for this user")


def _nearest_folder(path: Path) -> Path:
    """Of folders that are not there yet, the first that is tells whether they can be made."""
    folder = next(folder for folder in path.parents if folder.exists())
    if not folder.is_dir():
        raise StorageError(f"its folder cannot be used: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError("its folder is not writable for this user")
    return folder


def _check_room(folder: Path) -> None:
    """Whoever may write to /proc still makes no file there."""
    if not hasattr(os, "O_TMPFILE"):
        return
    try:
        # A file without a name, which nobody sees and no crash leaves behind.
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in _NO_TEMPORARY_FILES:
            raise
        # A file system that lacks them, like many over a network, or one that holds no files of others.
        if os.statvfs(folder).f_blocks == 0:
            raise StorageError(f"its folder cannot be used: {folder} holds no files") from error
