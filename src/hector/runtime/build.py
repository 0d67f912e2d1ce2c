"""From a configuration to a running `Runtime`."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from hector.config.load import Check
from hector.config.model import (
    AgentSection,
    BufferWindowSection,
    Config,
    LlmSection,
    LocalSection,
    OpenAISection,
    ScriptedSection,
    SkillSection,
    SqlStoreSection,
    SummaryBufferSection,
    WorkingSection,
)
from hector.config.sql import MySqlSection, PostgresSection
from hector.domain.agents import Agent
from hector.domain.errors import ConfigError, Problem
from hector.domain.memory import Compaction, TokenCounter, WorkingMemory
from hector.domain.models import Model
from hector.domain.profiles import Extension, Profile, Provider, Skill
from hector.domain.summaries import Summarizer
from hector.domain.tools import Tool
from hector.llm.resolve import LlmEntry, ModelChoice, ResolveError, resolve
from hector.memory.learning import LearningModel
from hector.memory.summarizer import ModelSummarizer
from hector.memory.token_budget import TokenBudget
from hector.memory.tokens import LearntCounter, counter_for
from hector.memory.window import BufferWindow
from hector.runtime.housekeeping import keep_house, tidy_up
from hector.runtime.patience import Patience, together
from hector.runtime.push.deliveries import Deliveries, PushSettings
from hector.runtime.push.signature import key_of
from hector.runtime.push.targets import Targets
from hector.runtime.replica import Replica
from hector.runtime.runtime import OpenStore, Runtime
from hector.runtime.stores import PRIVATE_STORE
from hector.runtime.stores import open_store as open_configured
from hector.runtime.turns import Store, TurnRunner
from hector.storage.extras import missing_driver
from hector.storage.store import SqlSessionStore
from hector.tools.function import ToolLoadError, load_tool

T = TypeVar("T")

OpenByName: TypeAlias = Callable[[Config, str], Awaitable[SqlSessionStore]]


def check(environ: Mapping[str, str] | None = None) -> Check:
    """The checks that `config.load` cannot make: packages, models, keys and tools."""
    variables = os.environ if environ is None else environ

    def problems(config: Config) -> Iterable[Problem]:
        yield from _driver_problems(config)
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
    summarizes: bool | None = None,
    patience: Patience | None = None,
    open_store: OpenByName | None = None,
) -> AsyncGenerator[Runtime, None]:
    """Open the stores and start the agents; on leaving, close them without waiting for running turns.

    With `only_agent` just that agent and its store. Whoever will be gone soon does not adopt:
    what waits for dead replicas, in sessions that it has no business with, is left for others. Nor does it
    summarise behind a reply, unless `summarizes` says so.
    With `patience` a store that cannot be reached is tried again for its `connect_retry`. `open_store` may
    open others than the configuration describes.
    Raises `ConfigError` and `StorageError`.
    """
    variables = os.environ if environ is None else environ
    if found := list(check(variables)(config)):
        raise ConfigError(found)
    sections = {name: config.agents[name] for name in config.agents if only_agent in (None, name)}
    models = _Models()
    agents = {name: _agent(config, name, section, variables, models) for name, section in sections.items()}
    async with contextlib.AsyncExitStack() as opened:
        open_ = open_store or open_configured
        stores = await _open_stores(
            config,
            agents,
            open_,
            opened,
            adopts=adopts,
            summarizes=adopts if summarizes is None else summarizes,
            patience=patience,
        )
        runtime = Runtime(agents, stores, models=models.all, message_limit=config.server.limits.message)
        # From here on the runtime closes the stores, after it has signed off from them.
        opened.pop_all()
        mine = [(agent, stores[agent.session_store].store) for agent in agents.values()]
        house = asyncio.create_task(keep_house(mine if adopts else ()))
        try:
            yield runtime
        finally:
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)
            if not adopts:  # it was gone before its housekeeping began
                await tidy_up(mine)
            await runtime.close()


async def _open_stores(
    config: Config,
    agents: Mapping[str, Agent],
    open_store: OpenByName,
    opened: contextlib.AsyncExitStack,
    *,
    adopts: bool,
    summarizes: bool,
    patience: Patience | None,
) -> dict[str, OpenStore]:
    """All at once; what was opened is closed by `opened`, also where another could not be."""
    names = list(dict.fromkeys(agent.session_store for agent in agents.values()))

    async def tried(name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await (patience.open(name, work, _connect_retry(config, name)) if patience else work())

    async def open_one(name: str) -> SqlSessionStore:
        store = await tried(name, lambda: open_store(config, name))
        opened.push_async_callback(store.close)
        return store

    async def join(name: str, store: SqlSessionStore) -> OpenStore:
        joined = await tried(
            name, lambda: _join(config, name, store, agents, adopts=adopts, summarizes=summarizes)
        )
        opened.push_async_callback(_leave, joined.runner, joined.replica)
        return joined

    stores = await together(map(open_one, names))
    # Not before all are open: a start that fails is not to touch what waits in those that were.
    joined = await together(map(join, names, stores))
    return dict(zip(names, joined, strict=True))


async def _join(
    config: Config,
    name: str,
    store: SqlSessionStore,
    agents: Mapping[str, Agent],
    *,
    adopts: bool,
    summarizes: bool,
) -> OpenStore:
    def agent_of(agent_name: str) -> Agent | None:
        agent = agents.get(agent_name)
        return agent if agent and agent.session_store == name else None

    contract: Store = store
    runner = TurnRunner(contract, agent_of, hands_over=adopts and store.shared, summarizes=summarizes)
    label = f"{config.server.replica_name or socket.gethostname()}:{os.getpid()}"
    replica = Replica(contract, runner, store.locks, label=label, ttl=config.turns.lease_ttl, adopts=adopts)
    try:
        await replica.start()
    except BaseException:
        await _leave(runner, replica)
        raise
    return OpenStore(name, contract, runner, replica, _deliveries(config, name, contract, runner))


def _deliveries(config: Config, name: str, store: Store, runner: TurnRunner) -> Deliveries | None:
    push = config.server.push
    durable = isinstance(config.session_stores.get(name), SqlStoreSection)
    if not (durable if push.enabled is None else push.enabled):
        return None
    settings = PushSettings(
        Targets(push.allow),
        [key_of(key.get_secret_value()) for key in push.signing_keys],
        push.timeout,
        push.give_up_after,
    )
    made = Deliveries(store, lambda: runner.replica_id, settings, others=lambda: runner.wakes.others)
    runner.changed = made.changed
    return made


async def _leave(runner: TurnRunner, replica: Replica) -> None:
    await runner.close(0.0)  # it may have adopted turns
    await replica.stop()


def _connect_retry(config: Config, name: str) -> float:
    match config.session_stores.get(name):
        case SqlStoreSection(connect_retry=seconds):
            return seconds
        case _:
            return 0.0


def _agent(
    config: Config,
    name: str,
    section: AgentSection,
    environ: Mapping[str, str],
    models: "_Models",
) -> Agent:
    """Agents that chose the same model share it: its connections, or its process and its memory."""
    choice = _choice(config, section.llm, environ)
    model, tokens = models.of(choice)
    memory = _memory(section.memory.working, tokens)
    tools = [load_tool(path) for path in section.tools]
    return Agent(
        name,
        section.prompt or _default_instructions(choice),
        model,
        memory,
        tokens,
        {tool.spec.name: tool for tool in tools},
        config.turn_settings(name, side_effects=any(not tool.idempotent for tool in tools)),
        section.session_store or PRIVATE_STORE,
        section.name or name,
        section.description,
        _profile(section),
        _summarizer(config, section.memory.working, model, memory, tokens, environ, models),
    )


def _profile(section: AgentSection) -> Profile:
    provider = section.provider
    return Profile(
        section.version or "",
        Provider(provider.organization, provider.url) if provider else None,
        section.documentation_url,
        section.icon_url,
        tuple(map(_skill, section.skills)),
        tuple(
            Extension(each.uri, each.description, each.required, each.params) for each in section.extensions
        ),
        section.extended.description,
        tuple(map(_skill, section.extended.skills)),
    )


def _skill(section: SkillSection) -> Skill:
    return Skill(
        section.id,
        section.name,
        section.description,
        section.tags,
        section.examples,
        section.input_modes,
        section.output_modes,
    )


def _memory(section: WorkingSection, tokens: TokenCounter) -> WorkingMemory:
    match section:
        case SummaryBufferSection(budget=budget, threshold=threshold, target=target):
            return TokenBudget(budget, tokens, Compaction(budget, threshold, target))
        case BufferWindowSection(window_size=window_size):
            return BufferWindow(window_size)


def _summarizer(
    config: Config,
    section: WorkingSection,
    model: Model,
    memory: WorkingMemory,
    tokens: TokenCounter,
    environ: Mapping[str, str],
    models: "_Models",
) -> Summarizer | None:
    """The agent's own model writes its summaries, if no other is named."""
    if memory.compaction is None:
        return None
    if isinstance(section, SummaryBufferSection) and section.summarizer:
        model, _ = models.of(_choice(config, section.summarizer, environ))
    return ModelSummarizer(model, tokens, memory.compaction, memory.limit)


def _choice(config: Config, llm: str, environ: Mapping[str, str]) -> ModelChoice:
    """Raises `ResolveError`."""
    section = config.llms.get(llm)
    return resolve(_entry(section) if section else llm, environ)


class _Models:
    """Those that agents chose, with their counters; each choice is one model."""

    def __init__(self) -> None:
        self._made: dict[ModelChoice, tuple[Model, TokenCounter]] = {}

    def of(self, choice: ModelChoice) -> tuple[Model, TokenCounter]:
        if choice not in self._made:
            self._made[choice] = _counted(choice)
        return self._made[choice]

    @property
    def all(self) -> Sequence[Model]:
        return [model for model, _ in self._made.values()]


def _counted(choice: ModelChoice) -> tuple[Model, TokenCounter]:
    model, counter = _model(choice), counter_for(choice.model or choice.provider)
    # A script counts words.
    if isinstance(counter, LearntCounter) and choice.provider != "scripted":
        model = LearningModel(model, counter)
    return model, counter


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
            return LlmEntry("scripted", section.model, orders=section.orders)


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

            return scripted_model(choice.model, choice.orders)


def _default_instructions(choice: ModelChoice) -> str:
    if choice.provider != "local":
        return ""
    from hector.llm.embedded import DEFAULT_INSTRUCTIONS  # noqa: PLC0415

    return DEFAULT_INSTRUCTIONS


def _driver_problems(config: Config) -> Iterable[Problem]:
    for name, store in config.session_stores.items():
        match store:
            case SqlStoreSection(sql=PostgresSection(driver=driver) | MySqlSection(driver=driver)):
                if text := missing_driver(driver):
                    yield config.problem(f"session_stores.{name}.sql.driver", text)
            case _:
                pass


def _model_problems(
    config: Config, name: str, agent: AgentSection, environ: Mapping[str, str]
) -> Iterable[Problem]:
    choice = yield from _choice_problems(config, f"agents.{name}.llm", agent.llm, environ)
    if choice and choice.provider == "local" and agent.tools:
        text = "the embedded model is too small for tools; leave them out, or choose another llm"
        yield config.problem(f"agents.{name}.tools", text)
    match agent.memory.working:
        case SummaryBufferSection(summarizer=str() as summarizer) if summarizer != agent.llm:
            place = f"agents.{name}.memory.working.summarizer"
            yield from _choice_problems(config, place, summarizer, environ)
        case _:
            pass


def _choice_problems(
    config: Config, place: str, llm: str, environ: Mapping[str, str]
) -> Generator[Problem, None, ModelChoice | None]:
    try:
        return _choice(config, llm, environ)
    except ResolveError as error:
        named = llm in config.llms
        path = f"llms.{llm}" if named else place
        known = f" (llms here: {', '.join(sorted(config.llms))})" if config.llms and not named else ""
        yield config.problem(f"{path}.{error.key}" if named and error.key else path, f"{error}{known}")
        return None


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
