"""From a configuration to a running `Runtime`."""

import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path

from hector.config.load import Check
from hector.config.model import (
    AgentSection,
    BufferWindowSection,
    Config,
    LlmSection,
    LocalSection,
    MemoryStoreSection,
    OpenAISection,
    ScriptedSection,
    SqlStoreSection,
    SummaryBufferSection,
    WorkingSection,
)
from hector.domain.agents import Agent
from hector.domain.errors import ConfigError, Problem
from hector.domain.memory import TokenCounter, WorkingMemory
from hector.domain.models import Model
from hector.domain.tools import Tool
from hector.llm.resolve import LlmEntry, ModelChoice, ResolveError, resolve
from hector.memory.token_budget import TokenBudget
from hector.memory.tokens import counter_for
from hector.memory.window import BufferWindow
from hector.runtime.replica import Replica
from hector.runtime.runtime import OpenStore, Runtime
from hector.runtime.turns import Store, TurnRunner
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore, open_memory, open_sqlite
from hector.tools.function import ToolLoadError, load_tool

PRIVATE_STORE = ""
"""Where agents keep their sessions that name no session store: in memory."""


def check(environ: Mapping[str, str] | None = None) -> Check:
    """The checks that `config.load` cannot make: models, keys and tools."""
    variables = os.environ if environ is None else environ

    def problems(config: Config) -> Iterable[Problem]:
        for name, agent in config.agents.items():
            yield from _model_problems(config, name, agent, variables)
            yield from _tool_problems(config, name, agent)

    return problems


@contextlib.asynccontextmanager
async def open_runtime(
    config: Config,
    *,
    environ: Mapping[str, str] | None = None,
    only_agent: str | None = None,
    adopts: bool = True,
) -> AsyncGenerator[Runtime, None]:
    """Open the stores and start the agents; on leaving, close them without waiting for running turns.

    With `only_agent` just that agent and its store. Whoever will be gone soon does not adopt:
    what waits for dead replicas, in sessions that it has no business with, is left for others.
    Raises `ConfigError` and `StoreOpenError`.
    """
    variables = os.environ if environ is None else environ
    if found := list(check(variables)(config)):
        raise ConfigError(found)
    sections = {name: config.agents[name] for name in config.agents if only_agent in (None, name)}
    models: dict[ModelChoice, Model] = {}
    agents = {name: _agent(config, name, section, variables, models) for name, section in sections.items()}
    async with contextlib.AsyncExitStack() as opened:
        stores: dict[str, OpenStore] = {}
        for name in dict.fromkeys(agent.session_store for agent in agents.values()):
            store = await _open_store(config, name)
            opened.push_async_callback(store.close)
            stores[name] = joined = await _join(config, name, store, agents, adopts=adopts)
            opened.push_async_callback(joined.replica.stop)
        runtime = Runtime(agents, stores, message_limit=config.server.limits.message)
        # From here on the runtime closes the stores, after it has signed off from them.
        opened.pop_all()
        try:
            yield runtime
        finally:
            await runtime.close()


async def _open_store(config: Config, name: str) -> SqlSessionStore:
    if name == PRIVATE_STORE:
        return open_memory()
    match config.session_stores[name]:
        case MemoryStoreSection():
            return open_memory()
        case SqlStoreSection(sql=sql):
            # One connection writes, the others read.
            settings = SqliteSettings(
                Path(sql.database),
                sql.synchronous,
                readers=sql.max_conns - 1,
                max_idle=sql.max_idle,
                lifetime=sql.conn_max_lifetime,
            )
            return await open_sqlite(name, settings)


async def _join(
    config: Config, name: str, store: SqlSessionStore, agents: Mapping[str, Agent], *, adopts: bool
) -> OpenStore:
    def agent_of(agent_name: str) -> Agent | None:
        agent = agents.get(agent_name)
        return agent if agent and agent.session_store == name else None

    contract: Store = store
    runner = TurnRunner(contract, agent_of)
    label = f"{socket.gethostname()}:{os.getpid()}"
    replica = Replica(contract, runner, store.locks, label=label, ttl=config.turns.lease_ttl, adopts=adopts)
    await replica.start()
    return OpenStore(name, contract, runner, replica)


def _agent(
    config: Config,
    name: str,
    section: AgentSection,
    environ: Mapping[str, str],
    models: dict[ModelChoice, Model],
) -> Agent:
    """Agents that chose the same model share it: its connections, or its process and its memory."""
    choice = _choice(config, section, environ)
    if choice not in models:
        models[choice] = _model(choice)
    tokens = counter_for(choice.model or choice.provider)
    tools = [load_tool(path) for path in section.tools]
    return Agent(
        name,
        section.prompt or _default_instructions(choice),
        models[choice],
        _memory(section.memory.working, tokens),
        tokens,
        {tool.spec.name: tool for tool in tools},
        config.turn_settings(name),
        section.session_store or PRIVATE_STORE,
        section.name or name,
        section.description,
    )


def _memory(section: WorkingSection, tokens: TokenCounter) -> WorkingMemory:
    match section:
        case SummaryBufferSection(budget=budget):
            return TokenBudget(budget, tokens)
        case BufferWindowSection(window_size=window_size):
            return BufferWindow(window_size)


def _choice(config: Config, agent: AgentSection, environ: Mapping[str, str]) -> ModelChoice:
    """Raises `ResolveError`."""
    section = config.llms.get(agent.llm)
    return resolve(_entry(section) if section else agent.llm, environ)


def _entry(section: LlmSection) -> LlmEntry:
    match section:
        case OpenAISection():
            key = section.api_key.get_secret_value() if section.api_key else None
            return LlmEntry(
                "openai",
                section.model,
                key,
                section.host,
                section.temperature,
                section.max_tokens,
                section.timeout,
                section.context_window,
            )
        case LocalSection():
            return LlmEntry(
                "local",
                str(section.model) if section.model else None,
                temperature=section.temperature,
                max_tokens=section.max_tokens,
                threads=section.threads,
                context_window=section.context_window,
            )
        case ScriptedSection():
            return LlmEntry("scripted", section.model)


def _model(choice: ModelChoice) -> Model:
    # Each of these imports what the others do not need.
    match choice.provider:
        case "openai":
            from hector.llm.provider import openai_model  # noqa: PLC0415

            return openai_model(choice)
        case "local":
            from hector.llm.embedded import embedded_model  # noqa: PLC0415

            return embedded_model(choice)
        case "scripted":
            from hector.llm.scripted import scripted_model  # noqa: PLC0415

            return scripted_model(choice.model)


def _default_instructions(choice: ModelChoice) -> str:
    if choice.provider != "local":
        return ""
    from hector.llm.embedded import DEFAULT_INSTRUCTIONS  # noqa: PLC0415

    return DEFAULT_INSTRUCTIONS


def _model_problems(
    config: Config, name: str, agent: AgentSection, environ: Mapping[str, str]
) -> Iterable[Problem]:
    try:
        choice = _choice(config, agent, environ)
        if choice.provider == "local" and agent.tools:
            text = "the embedded model is too small for tools; leave them out, or choose another llm"
            yield config.problem(f"agents.{name}.tools", text)
    except ResolveError as error:
        named = agent.llm in config.llms
        path = f"llms.{agent.llm}" if named else f"agents.{name}.llm"
        known = f" (llms here: {', '.join(sorted(config.llms))})" if config.llms and not named else ""
        yield config.problem(f"{path}.{error.key}" if named and error.key else path, f"{error}{known}")


def _tool_problems(config: Config, name: str, agent: AgentSection) -> Iterable[Problem]:
    names: dict[str, str] = {}
    for number, path in enumerate(agent.tools):
        place = f"agents.{name}.tools[{number}]"
        try:
            tool: Tool = load_tool(path)
        except ToolLoadError as error:
            yield config.problem(place, str(error))
            continue
        other = names.setdefault(tool.spec.name, path)
        if other != path:
            yield config.problem(
                place, f"{path} and {other} both call themselves {tool.spec.name!r}; rename one"
            )
