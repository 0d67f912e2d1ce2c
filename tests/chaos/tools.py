"""The tools of the agents under test: each run leaves a line in a ledger, whatever becomes of its process."""

import asyncio
import json
import os
import random
import time
import uuid

from hector import InputRequiredError, tool

LEDGER = "HECTOR_CHAOS_LEDGER"
"""The environment variable with the ledger's path."""
_LONGEST = 0.02
"""Seconds before the effect, and again after it."""
_LINGERS, _LONGEST_LINGERING = 0.2, 0.4
"""How many take longer, so that faults happen meanwhile; and how long."""


@tool(idempotent=True)
async def look(key: str) -> str:
    """Look something up."""
    await asyncio.sleep(_a_while())
    run = _enter("look", key)
    await asyncio.sleep(_a_while())
    return f"{key} ran as {run}"


@tool
def pay(key: str) -> str:
    """Pay somebody."""
    _block(_a_while())
    run = _enter("pay", key)
    _block(_a_while())
    return f"{key} ran as {run}"


@tool(idempotent=True)
async def ask(key: str) -> str:
    """Ask the user something."""
    await asyncio.sleep(_a_while())
    run = _enter("ask", key)
    await asyncio.sleep(_a_while())
    raise InputRequiredError(f"{key} ran as {run}, what now?")


def _enter(name: str, key: str) -> str:
    """The effect; the name of this run."""
    run = uuid.uuid4().hex
    entry = {"tool": name, "key": key, "run": run, "pid": os.getpid(), "at": time.monotonic()}
    ledger = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # One write, so that lines of several processes never mix.
        os.write(ledger, json.dumps(entry).encode() + b"\n")
    finally:
        os.close(ledger)
    return run


def _block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - as tools do that are no coroutines


def _a_while() -> float:
    return random.uniform(0, _LONGEST_LINGERING if random.random() < _LINGERS else _LONGEST)
