"""How a driver talks to the test that runs it: lines of JSON, each with the number of its order.

    in:   {"number": 1, "do": "stream", "text": "Hello", "context": "c", "message": "m"}
    out:  {"number": 1, "kind": "artifact", ...}, as often as there is something to tell, and at last
          {"number": 1, "kind": "end"} or {"number": 1, "kind": "error", "name": "ItsError", "text": "..."}

Orders are carried out side by side. Before the first, when it has read the agent's card, a driver says
{"kind": "ready"}. The standard library alone: this runs with each of the clients.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

Order = Mapping[str, Any]
Seen = dict[str, Any]


async def carry_out(orders: Mapping[str, Callable[[Order], AsyncIterator[Seen]]]) -> None:
    """Until the standard input ends."""
    tell({"kind": "ready"})
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    running = set()
    while line := await lines.readline():
        order = json.loads(line)
        task = asyncio.create_task(_carry_out(orders[order["do"]], order))
        running.add(task)
        task.add_done_callback(running.discard)
    for task in running:
        task.cancel()


async def _carry_out(do: Callable[[Order], AsyncIterator[Seen]], order: Order) -> None:
    number = order["number"]
    try:
        async for seen in do(order):
            tell({"number": number, **seen})
    except Exception as error:  # what a client raises is what the test wants to know
        tell({"number": number, "kind": "error", "name": type(error).__name__, "text": str(error)})
    else:
        tell({"number": number, "kind": "end"})


def tell(seen: Seen) -> None:
    print(json.dumps(seen), flush=True)
