"""A whole server in this process: HTTP and gRPC on ports of its own, and the scripted agents `a` and `b`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from hector.config import ServerSection
from hector.domain.profiles import Profile
from hector.domain.tools import Tool
from hector.llm.scripted import ScriptedModel
from hector.runtime.patience import Patience
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.runtime import Runtime
from hector.server.listening import listen
from hector.server.serve import Ports, Server
from tests.server.site import open_scripted


@dataclass(frozen=True)
class Served:
    server: Server
    runtime: Runtime
    model: ScriptedModel
    http: httpx.AsyncClient
    channel: grpc.aio.Channel


@asynccontextmanager
async def serving(
    *,
    tools: Sequence[Tool] = (),
    profile: Profile = Profile(),
    push: PushSettings | None = None,
    **server_keys: Any,
) -> AsyncIterator[Served]:
    """`server_keys`: of the section `server`."""
    async with AsyncExitStack() as stack:
        named = {tool.spec.name: tool for tool in tools}
        runtime, model = await open_scripted(tools=named, profile=profile, push=push)
        section = ServerSection(port=0, drain_timeout=0, **server_keys)
        server = Server(section, Ports(await listen(section.host, 0, patience=0), 0), Patience())
        await server.start()
        stack.push_async_callback(server.stop)
        await server.open(runtime)
        # Without the certificates of this machine, which take longer to read than most tests.
        http = httpx.AsyncClient(base_url=server.url, timeout=20, verify=False)
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc_address))
        yield Served(server, runtime, model, http, channel)
