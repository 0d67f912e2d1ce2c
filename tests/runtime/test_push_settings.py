"""Which agents have webhooks, by the configuration."""

import base64
from pathlib import Path

import pytest

from hector.config import loads
from hector.runtime.build import open_runtime
from hector.runtime.push.targets import TargetError

KEYS = [b"a" * 24, b"b" * 32]


@pytest.mark.parametrize(
    ("enabled", "durable", "in_memory"), [("", True, False), ("true", True, True), ("false", False, False)]
)
async def test_by_default_those_whose_sessions_outlive_the_process(
    tmp_path: Path, enabled: str, durable: bool, in_memory: bool
) -> None:
    config = loads(
        f"""
        session_stores:
          file: {{backend: sql, sql: {{driver: sqlite, database: {tmp_path}/x.db}}}}
          memory: {{backend: memory}}
        llms: {{echoes: {{type: scripted}}}}
        server: {{push: {{enabled: {enabled}}}}}
        agents:
          durable: {{llm: echoes, session_store: file}}
          forgetful: {{llm: echoes, session_store: memory}}
          private: {{llm: echoes}}
        """
    )
    async with open_runtime(config, environ={}) as runtime:
        assert runtime.pushes("durable") is durable
        assert runtime.pushes("forgetful") is in_memory
        assert runtime.pushes("private") is in_memory


async def test_all_that_is_configured_counts() -> None:
    keys = ["whsec_" + base64.b64encode(key).decode() for key in KEYS]
    config = loads(
        f"""
        llms: {{echoes: {{type: scripted}}}}
        server:
          push: {{enabled: true, allow: [127.0.0.0/8], signing_keys: {keys}, timeout: 3s, give_up_after: 1h}}
        agents: {{a: {{llm: echoes}}}}
        """
    )
    async with open_runtime(config, environ={}) as runtime:
        deliveries = runtime._of(runtime.agent("a")).deliveries
        assert deliveries
        settings = deliveries.settings
        assert (settings.timeout, settings.give_up_after, list(settings.keys)) == (3.0, 3600.0, KEYS)
        await runtime.check_push("a", "http://127.0.0.1/")
        with pytest.raises(TargetError):
            await runtime.check_push("a", "http://[::1]/")
