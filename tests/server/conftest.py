"""The application in process, opened in one way or another."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from hector.config import AuthSection, LimitsSection, ServerSection
from hector.domain.profiles import Profile
from hector.domain.tools import Tool
from hector.domain.turns import TurnSettings
from hector.runtime.push.deliveries import PushSettings
from hector.server.http.app import build_app
from tests.server.site import AGENTS, Site, StartSite, open_scripted


@pytest.fixture
async def start() -> AsyncIterator[StartSite]:
    async with AsyncExitStack() as stack:

        async def start(
            *,
            loopback: bool = True,
            auth: AuthSection | None = None,
            body_limit: int = 100_000,
            base_url: str | None = None,
            settings: TurnSettings | None = None,
            tools: Sequence[Tool] = (),
            names: Mapping[str, tuple[str, str]] = AGENTS,
            default_agent: str | None = None,
            profile: Profile | None = None,
            push: PushSettings | None = None,
            **server_keys: Any,
        ) -> Site:
            runtime, model = await open_scripted(
                settings=settings,
                tools={tool.spec.name: tool for tool in tools},
                names=names,
                profile=profile or Profile(),
                push=push,
            )
            stack.push_async_callback(runtime.close)
            server = ServerSection(
                auth=auth or AuthSection(),
                limits=LimitsSection(body=body_limit),
                base_url=base_url,
                default_agent=default_agent,
                **server_keys,
            )
            app = build_app(runtime, server, loopback=loopback)
            transport = httpx.ASGITransport(app)
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost:8091", timeout=10)
            await stack.enter_async_context(client)
            return Site(client, app, runtime, model)

        yield start


@pytest.fixture
async def site(start: StartSite) -> Site:
    return await start()
