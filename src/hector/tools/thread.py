"""Runs a blocking function beside the event loop."""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any


async def in_thread(function: Callable[[], Any]) -> Any:
    """What the function returns or raises. Cancelling abandons the thread: Python cannot stop one.

    Not `asyncio.to_thread`: abandoned functions would fill its few places and hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Callable[[], Any]] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:  # noqa: BLE001 - it is raised where the thread is awaited
            report(functools.partial(_raise, error))
        else:
            report(lambda: result)

    def report(given: Callable[[], Any]) -> None:
        # The loop is closed if the process ended before an abandoned function did.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, given)

    def settle(given: Callable[[], Any]) -> None:
        if not outcome.done():
            outcome.set_result(given)

    threading.Thread(target=work, name="hector-tool", daemon=True).start()
    return (await outcome)()


def _raise(error: BaseException) -> Any:
    raise error
