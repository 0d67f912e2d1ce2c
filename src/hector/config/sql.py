"""Session stores in SQL: a section for each driver, with whatever its `dsn` says under the other keys."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from hector.config.dsn import DRIVERS, Driver, read_dsn
from hector.config.faults import Fault, FaultsError
from hector.config.section import Section
from hector.config.suggest import one_of
from hector.config.values import (
    Connections,
    DatabaseHost,
    DatabaseName,
    DatabasePath,
    DatabasePort,
    DatabaseUser,
    Duration,
    NoneOrMore,
    Password,
    ReadableFile,
    SchemaName,
    SettingName,
    SettingValue,
    SslMode,
    StatementTimeout,
    Synchronous,
    TimeLimit,
)


class _DatabaseSection(Section):
    # The kinds of these differ, and they stand here so that they are listed first.
    driver: Any
    database: Any
    max_conns: Connections
    max_idle: NoneOrMore
    conn_max_lifetime: Duration
    dsn: SecretStr | None = None
    url: SecretStr | None = None

    @model_validator(mode="after")
    def _idle_within_conns(self) -> "_DatabaseSection":
        if self.max_idle > self.max_conns:
            text = f"wanted at most max_conns, which is {self.max_conns}, found {self.max_idle}"
            raise FaultsError(Fault(("max_idle",), text))
        return self


class SqliteSection(_DatabaseSection):
    driver: Literal["sqlite"]
    database: DatabasePath
    max_conns: Connections = 10
    max_idle: NoneOrMore = 2
    conn_max_lifetime: Duration = 0.0
    synchronous: Synchronous = "full"


class _DatabaseServerSection(_DatabaseSection):
    reserved: ClassVar[Mapping[str, str]]
    """What `options` may not set, as patterns, and why."""

    database: DatabaseName
    host: DatabaseHost = "localhost"
    """A name, an address, or (an absolute path) the folder or file of a Unix socket."""
    port: DatabasePort
    user: DatabaseUser
    password: Password | None = None
    ssl_mode: SslMode = "prefer"
    ssl_cert: ReadableFile | None = None
    ssl_key: ReadableFile | None = None
    """None: it stands in `ssl_cert`, too."""
    ssl_root_cert: ReadableFile | None = None
    """None: the certificates that the system trusts."""
    # A turn has a connection for milliseconds, so these serve thousands of turns a second; and a server that
    # takes 100, as PostgreSQL does by default, has room for four such processes.
    max_conns: Connections = 20
    max_idle: NoneOrMore = Field(default_factory=lambda known: max(1, known["max_conns"] // 4))
    conn_max_lifetime: Duration = 3600.0
    connect_timeout: TimeLimit = 10.0
    statement_timeout: StatementTimeout = 30.0
    options: Mapping[SettingName, SettingValue] = {}

    @field_validator("options", mode="wrap")
    @classmethod
    def _leave_what_is_ours(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        faults = [
            Fault((name,), f"cannot be set: {why}")
            for name in (value if isinstance(value, Mapping) else ())
            for pattern, why in cls.reserved.items()
            if re.fullmatch(pattern, str(name))
        ]
        return _validated(value, validate, faults)

    @model_validator(mode="after")
    def _key_with_cert(self) -> "_DatabaseServerSection":
        if self.ssl_key and not self.ssl_cert:
            raise FaultsError(Fault(("ssl_key",), "is the key of a certificate; wanted ssl_cert beside it"))
        return self


_OURS = {
    r"(default_)?transaction_isolation|tx_isolation": "Hector's transactions need the isolation it sets",
    r"(default_)?transaction_read_only|tx_read_only": "Hector writes",
}


class PostgresSection(_DatabaseServerSection):
    reserved: ClassVar[Mapping[str, str]] = {
        **_OURS,
        "search_path": "Hector looks nowhere but in its schema, which the key schema names",
        "client_encoding": "Hector speaks UTF-8",
        "timezone": "Hector keeps times in UTC",
        "statement_timeout": "it is a key of its own, beside options",
    }

    driver: Literal["postgres"]
    port: DatabasePort = 5432
    # Pydantic has a method by the key's name.
    schema_name: SchemaName | None = Field(default=None, alias="schema")
    """None: where the user's tables go, or a schema named after the user."""


class MySqlSection(_DatabaseServerSection):
    strangers: ClassVar[Mapping[str, str]] = {
        "schema": "is PostgreSQL's; MySQL's schema is its database, which the key database names"
    }
    reserved: ClassVar[Mapping[str, str]] = {
        **_OURS,
        "autocommit|completion_type": "Hector commits where a turn needs it",
        "sql_mode": "Hector needs the strict mode that it sets",
        "names|character_set.*|collation.*": "Hector speaks utf8mb4",
        "time_zone": "Hector keeps times in UTC",
        "max_statement_time|max_execution_time": "it is the key statement_timeout, beside options",
    }

    driver: Literal["mysql"]
    port: DatabasePort = 3306


_KEYS: Mapping[Driver, list[str]] = {
    "sqlite": list(SqliteSection.written_keys()),
    "postgres": list(PostgresSection.written_keys()),
    "mysql": list(MySqlSection.written_keys()),
}


def _spelled_out(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """The driver by the name that chooses the section, and what the dsn says as if it stood beside it."""
    if not isinstance(value, Mapping):
        return validate(value)
    keys = {key: item for key, item in value.items() if key != "driver" or item is not None}
    _name_driver(keys)
    faults = [fault for name in ("dsn", "url") for fault in _spell_out(name, keys)]
    return _validated(keys, validate, faults)


def _name_driver(keys: dict[str, Any]) -> None:
    driver = keys.get("driver")
    if isinstance(driver, str):
        if "://" in driver:
            text = f"wanted {one_of(_KEYS)}; a URL is written under dsn"
            raise FaultsError(Fault(("driver",), text, silences=()))
        keys["driver"] = DRIVERS.get(driver.lower(), driver)


def _spell_out(name: str, keys: dict[str, Any]) -> list[Fault]:
    """Takes apart the dsn that has this name, if there is one.

    Raises `FaultsError` where the driver is unclear, which leaves nothing else to tell.
    """
    if keys.get(name) is None:
        return []
    if name == "url" and keys.get("dsn") is not None:
        return [Fault((name,), "is another name for dsn; keep one")]
    keys[name] = _plain(keys[name])
    dsn = read_dsn(keys[name], _KEYS)
    faults = [Fault((name,), text) for text in dsn.faults]
    driver = keys.get("driver", dsn.driver)
    if driver is None:
        raise FaultsError(*faults)
    if driver not in list(_KEYS):
        return []
    if dsn.driver not in (None, driver):
        text = f"is {driver}, and {name} is for {dsn.driver}; keep one"
        raise FaultsError(Fault(("driver",), text, silences=()))
    keys["driver"] = driver
    faults += _merge(name, dsn.values, keys)
    if dsn.faults:
        # What could not be read may have said these, too: they are not to be told as missing.
        keys |= {key: "-" for key in ("user", "database") if key in _KEYS[driver] and keys.get(key) is None}
    return faults


def _merge(name: str, values: Mapping[str, Any], keys: dict[str, Any]) -> list[Fault]:
    faults = []
    for key, item in values.items():
        own = keys.get(key)
        if own is None:
            keys[key] = item
        elif key != "options":
            faults += [Fault((key,), _twice(name))] if _plain(own) != item else []
        elif isinstance(own, Mapping):
            keys[key] = {**item, **own}
            faults += [Fault((key, inner), _twice(name)) for inner in item if keys[key][inner] != item[inner]]
    return faults


def _twice(name: str) -> str:
    return f"is also in {name}, with another value; keep one"


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _validated(value: Any, validate: ValidatorFunctionWrapHandler, faults: list[Fault]) -> Any:
    """Raises pydantic's errors and our faults together, so that all are told at once."""
    try:
        section = validate(value)
    except ValidationError as error:
        if not faults:
            raise
        details = [_as_init(found) for found in error.errors(include_url=False)]
        ours = InitErrorDetails(type="value_error", input=None, ctx={"error": FaultsError(*faults)})
        raise ValidationError.from_exception_data(error.title, [*details, ours], hide_input=True) from None
    if faults:
        raise FaultsError(*faults)
    return section


def _as_init(found: ErrorDetails) -> InitErrorDetails:
    details = InitErrorDetails(type=found["type"], loc=found["loc"], input=found["input"])
    if "ctx" in found:
        details["ctx"] = found["ctx"]
    return details


SqlSection: TypeAlias = Annotated[
    SqliteSection | PostgresSection | MySqlSection,
    Field(discriminator="driver"),
    WrapValidator(_spelled_out),
]
