"""Children are found while they run, and their end is noticed."""

import asyncio
import os
import signal
import sys

from tests.chaos.processes import children_of, send_all, until_ended


async def test_the_children_of_a_process_are_those_that_run() -> None:
    before = set(children_of(os.getpid()))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=asyncio.subprocess.PIPE
    )
    assert set(children_of(os.getpid())) - before == {child.pid}
    send_all([child.pid], signal.SIGKILL)
    await until_ended([child.pid])
    assert child.pid not in children_of(os.getpid())
    await child.wait()
    send_all([child.pid], signal.SIGKILL)
    await until_ended([child.pid])
    assert children_of(child.pid) == []
