"""The configuration: one frozen class for each section of the file, explained in docs/configuration.md."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from hector.config.faults import Fault, FaultsError, KeyPath, dotted
from hector.config.locate import Locator
from hector.config.section import Section
from hector.config.sql import SqlSection
from hector.config.suggest import did_you_mean
from hector.config.values import (
    AgentName,
    ApiKey,
    BindHost,
    BodySize,
    Count,
    Duration,
    FilePath,
    Filled,
    GrpcAddress,
    HttpUrl,
    LeaseTtl,
    LogFormat,
    LogLevel,
    MediaType,
    MessageSize,
    OnBusy,
    OnCrash,
    Port,
    PushTarget,
    ReadableFile,
    Script,
    Share,
    SigningKey,
    Temperature,
    Threads,
    TimeLimit,
    Token,
    ToolPath,
    Uri,
    UserId,
    WebUrl,
    json_params,
)
from hector.domain.errors import Problem
from hector.domain.turns import Recovery, TurnSettings

# -------------------------------------------------------------------------------------------- server


class TokenSection(Section):
    token: Token
    user: UserId
    admin: bool = False


class AuthSection(Section):
    tokens: tuple[TokenSection, ...] = ()

    @field_validator("tokens")
    @classmethod
    def _each_once(cls, tokens: tuple[TokenSection, ...]) -> tuple[TokenSection, ...]:
        first: dict[str, int] = {}
        faults = []
        for index, section in enumerate(tokens):
            earlier = first.setdefault(section.token.get_secret_value(), index)
            if earlier != index:
                faults.append(
                    Fault((index, "token"), f"is the same as tokens[{earlier}].token; wanted another")
                )
        if faults:
            raise FaultsError(*faults)
        return tokens


class LimitsSection(Section):
    body: BodySize = 20_000_000
    message: MessageSize = 16_000_000


class ServerTlsSection(Section):
    cert: FilePath
    key: FilePath
    client_ca: FilePath | None = None


class PushSection(Section):
    enabled: bool | None = None
    """None: where sessions outlive the process."""
    allow: tuple[PushTarget, ...] = ()
    signing_keys: tuple[SigningKey, ...] = ()
    timeout: TimeLimit = 15.0
    give_up_after: Duration = 24 * 3600.0


class ServerSection(Section):
    host: BindHost = "127.0.0.1"
    port: Port = 8090
    base_url: HttpUrl | None = None
    grpc_address: GrpcAddress | None = None
    default_agent: Filled | None = None
    card_key: ReadableFile | None = None
    card_key_id: Filled | None = None
    card_key_url: WebUrl | None = None
    auth: AuthSection = AuthSection()
    limits: LimitsSection = LimitsSection()
    tls: ServerTlsSection | None = None
    push: PushSection = PushSection()
    drain_timeout: Duration = 10.0
    replica_name: Filled | None = None
    workers: Annotated[Count, Field(le=256)] = 1


# --------------------------------------------------------------------------------------------- turns


class TurnsSection(Section):
    on_busy: OnBusy = "wait"
    max_wait: TimeLimit = 300.0
    max_waiting: Count = 100
    max_steps: Count = 20
    on_crash: OnCrash | None = None
    max_attempts: Count = 3
    event_retention: Duration = 300.0
    lease_ttl: LeaseTtl = 15.0


class AgentTurnsSection(Section):
    """None takes the value of the file's `turns`."""

    on_busy: OnBusy | None = None
    max_wait: TimeLimit | None = None
    max_waiting: Count | None = None
    max_steps: Count | None = None
    on_crash: OnCrash | None = None
    max_attempts: Count | None = None
    event_retention: Duration | None = None


# ------------------------------------------------------------------------------------ session stores


class SqlStoreSection(Section):
    backend: Literal["sql"]
    sql: SqlSection
    connect_retry: Duration = 60.0
    auto_migrate: bool = True


class MemoryStoreSection(Section):
    backend: Literal["memory"]


SessionStoreSection: TypeAlias = Annotated[
    SqlStoreSection | MemoryStoreSection, Field(discriminator="backend")
]


# ---------------------------------------------------------------------------------------------- llms


class OpenAISection(Section):
    """OpenAI, or whatever speaks its API at `host`."""

    type: Literal["openai"]
    model: Filled
    api_key: ApiKey | None = None
    host: HttpUrl | None = None
    timeout: TimeLimit = 120.0
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    context_window: Count | None = None


class LocalSection(Section):
    """The model that needs no key, run on this machine."""

    type: Literal["local"]
    model: FilePath | None = None
    threads: Threads = 1
    context_window: Count = 8192
    max_tokens: Count = 1024
    temperature: Temperature = 0.0


class ScriptedSection(Section):
    """A model that follows a script, for tests and benchmarks."""

    type: Literal["scripted"]
    model: Script = "echo"
    orders: Mapping[Filled, str] = {}


LlmSection: TypeAlias = Annotated[OpenAISection | LocalSection | ScriptedSection, Field(discriminator="type")]


# -------------------------------------------------------------------------------------------- agents


class SummaryBufferSection(Section):
    strategy: Literal["summary_buffer"] = "summary_buffer"
    budget: Count = 2000
    threshold: Share = 0.8
    target: Share = 0.6
    summarizer: Filled | None = None

    @model_validator(mode="after")
    def _makes_room(self) -> "SummaryBufferSection":
        if self.target >= self.threshold:
            text = f"is {self.target:g}; wanted less than the threshold, which is {self.threshold:g}"
            raise FaultsError(Fault(("target",), text))
        return self


class BufferWindowSection(Section):
    strategy: Literal["buffer_window"]
    window_size: Count = 20


def _summary_buffer_by_default(value: Any) -> Any:
    if isinstance(value, Mapping) and value.get("strategy") is None:
        return {**value, "strategy": "summary_buffer"}
    return value


WorkingSection: TypeAlias = Annotated[
    SummaryBufferSection | BufferWindowSection,
    Field(discriminator="strategy"),
    BeforeValidator(_summary_buffer_by_default),
]


class MemorySection(Section):
    working: WorkingSection = SummaryBufferSection()


class SkillSection(Section):
    id: Filled
    name: Filled
    description: Filled
    tags: tuple[Filled, ...] = ()
    examples: tuple[Filled, ...] = ()
    input_modes: tuple[MediaType, ...] = ()
    output_modes: tuple[MediaType, ...] = ()


class ExtensionSection(Section):
    uri: Uri
    description: str = ""
    required: bool = False
    params: Mapping[str, Any] = {}

    _params = field_validator("params")(json_params)


class ProviderSection(Section):
    organization: Filled
    url: WebUrl


class ExtendedSection(Section):
    """What only callers who signed in are told."""

    description: str = ""
    skills: tuple[SkillSection, ...] = ()


class AgentSection(Section):
    llm: Filled
    name: str | None = None
    description: str = ""
    version: Filled | None = None
    provider: ProviderSection | None = None
    documentation_url: WebUrl | None = None
    icon_url: WebUrl | None = None
    skills: tuple[SkillSection, ...] = ()
    extended: ExtendedSection = ExtendedSection()
    extensions: tuple[ExtensionSection, ...] = ()
    prompt: str = ""
    session_store: str | None = None
    memory: MemorySection = MemorySection()
    tools: tuple[ToolPath, ...] = ()
    turns: AgentTurnsSection = AgentTurnsSection()

    @model_validator(mode="after")
    def _each_once(self) -> "AgentSection":
        skills: dict[KeyPath, str] = {("skills", index): each.id for index, each in enumerate(self.skills)}
        for index, skill in enumerate(self.extended.skills):
            skills["extended", "skills", index] = skill.id
        extensions: dict[KeyPath, str] = {
            ("extensions", index): each.uri for index, each in enumerate(self.extensions)
        }
        if faults := [*_repeated(skills, "id"), *_repeated(extensions, "uri")]:
            raise FaultsError(*faults)
        return self


def _repeated(named: Mapping[KeyPath, str], key: str) -> Iterator[Fault]:
    first: dict[str, KeyPath] = {}
    for path, name in named.items():
        earlier = first.setdefault(name, path)
        if earlier != path:
            yield Fault((*path, key), f"is the same as {dotted((*earlier, key))}; wanted another")


# ------------------------------------------------------------------------------------------ the file


class LoggingSection(Section):
    level: LogLevel = "info"
    format: LogFormat = "text"


class Config(Section):
    """A whole configuration. `load` makes one of a file; tests and programs may make one themselves."""

    agents: Mapping[AgentName, AgentSection] = Field(min_length=1)
    llms: Mapping[Filled, LlmSection] = {}
    session_stores: Mapping[Filled, SessionStoreSection] = {}
    server: ServerSection = ServerSection()
    turns: TurnsSection = TurnsSection()
    logging: LoggingSection = LoggingSection()

    _locator: Locator = PrivateAttr(default_factory=Locator)

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        wanted = {name: agent.session_store for name, agent in self.agents.items()}
        faults = dangling_stores(wanted, self.session_stores)
        if faults := faults + dangling_default_agent(self.server.default_agent, self.agents):
            raise FaultsError(*faults)
        return self

    def turn_settings(self, agent: str, *, side_effects: bool = False) -> TurnSettings:
        """An agent's, with the file's `turns` where it says nothing itself.

        `side_effects`: one of its tools has some, so that a turn is not run again unless that is asked for.
        """
        own, common = self.agents[agent].turns, self.turns
        return TurnSettings(
            on_busy=common.on_busy if own.on_busy is None else own.on_busy,
            max_wait=common.max_wait if own.max_wait is None else own.max_wait,
            max_waiting=common.max_waiting if own.max_waiting is None else own.max_waiting,
            max_steps=common.max_steps if own.max_steps is None else own.max_steps,
            recovery=Recovery(
                own.on_crash or common.on_crash or ("fail" if side_effects else "resume"),
                common.max_attempts if own.max_attempts is None else own.max_attempts,
            ),
            event_retention=(common.event_retention if own.event_retention is None else own.event_retention),
        )

    def where(self, path: str) -> tuple[str, int | None]:
        """File and line of the key at a dotted path, or of the nearest above; ('', None) if made in code."""
        return self._locator.file, self._locator.line(self._locator.written(path))

    def problem(self, path: str, text: str) -> Problem:
        """For checks beyond shape, like that of API keys."""
        file, line = self.where(path)
        return Problem(self._locator.written(path), text, file, line)

    def shown(self) -> dict[str, Any]:
        """Ready for JSON, defaults filled in, durations in seconds, sizes in bytes, secrets masked."""
        return self.model_dump(mode="json", by_alias=True)


def dangling_stores(wanted: Mapping[str, str | None], stores: Collection[str]) -> list[Fault]:
    """A fault for each agent whose store is not there; `wanted` is by agent."""
    known = f"known: {', '.join(sorted(stores))}" if stores else "session_stores has none"
    return [
        Fault(
            ("agents", agent, "session_store"),
            f"no session store named {store!r}{did_you_mean(store, stores) or f' ({known})'}",
        )
        for agent, store in wanted.items()
        if store is not None and store not in stores
    ]


def dangling_default_agent(wanted: str | None, agents: Collection[str]) -> list[Fault]:
    if wanted is None or wanted in agents:
        return []
    hint = did_you_mean(wanted, agents) or f" (known: {', '.join(sorted(agents))})"
    return [Fault(("server", "default_agent"), f"no agent named {wanted!r}{hint}")]
