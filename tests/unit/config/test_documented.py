"""The configurations of session stores that users are shown, as they are written."""

from pathlib import Path
from typing import Any

import pytest

from hector.config import MySqlSection, PostgresSection, SqliteSection, SqlStoreSection, loads

AGENT = 'agents: {assistant: {llm: "gpt-4o"}}\n'
ENVIRON = {"DB_PASSWORD": "hunter2", "HECTOR_DB_PASSWORD": "hunter2"}

REFERENCE = """\
session_stores:
  # Store name: can be referenced by multiple agents
  production-db:
    backend: sql
    sql:
      driver: postgres
      host: postgres.example.com
      port: 5432
      user: hector
      password: ${DB_PASSWORD}  # From environment
      database: hector_sessions
      ssl_mode: require
      max_conns: 50
      max_idle: 10
      conn_max_lifetime: 3600  # 1 hour

  dev-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./dev-sessions.db
      max_conns: 5
"""

AGENTS = """\
agents:
  assistant:
    llm: "gpt-4o"
    session_store: "production-db"  # References global store
    
  researcher:
    llm: "claude-3-5-sonnet-20241022"
    session_store: "production-db"  # Shares DB, isolated by agent_id
    
  dev-agent:
    llm: "gpt-4o-mini"
    session_store: "dev-db"  # Uses separate DB
"""  # noqa: W293

SQLITE = """\
session_stores:
  local:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db
      max_conns: 10        # SQLite supports limited concurrency
      max_idle: 2
"""

POSTGRES = """\
session_stores:
  postgres:
    backend: sql
    sql:
      driver: postgres
      host: localhost
      port: 5432
      user: hector
      password: ${HECTOR_DB_PASSWORD}  # From environment
      database: hector_sessions
      ssl_mode: disable  # Use 'require' in production
      max_conns: 100
      max_idle: 25
      conn_max_lifetime: 3600
"""

MYSQL = """\
session_stores:
  mysql:
    backend: sql
    sql:
      driver: mysql
      host: localhost
      port: 3306
      user: hector
      password: ${HECTOR_DB_PASSWORD}
      database: hector_sessions
      max_conns: 100
      max_idle: 25
      conn_max_lifetime: 3600
"""

SHARED = """\
session_stores:
  shared-db:
    backend: sql
    sql:
      driver: postgres
      host: db.example.com
      database: hector_sessions
      user: hector
      password: ${DB_PASSWORD}
      max_conns: 200  # Shared across all agents

agents:
  customer-support:
    session_store: "shared-db"
    llm: "gpt-4o"
    
  sales-assistant:
    session_store: "shared-db"
    llm: "claude-3-5-sonnet-20241022"
    
  technical-advisor:
    session_store: "shared-db"
    llm: "gpt-4o"
"""  # noqa: W293

# What follows is cut from larger sections; each ends where what it leaves out can be added.

POOL = """\
session_stores:
  production:
    backend: sql
    sql:
      # Connection pool settings
      max_conns: 100          # Maximum connections
      max_idle: 25            # Idle connections to keep
      conn_max_lifetime: 3600 # Close connections after 1 hour
"""

SECURE = """\
session_stores:
  secure-db:
    backend: sql
    sql:
      driver: postgres
      host: db.prod.example.com
      ssl_mode: require        # ✅ Require SSL
      password: ${DB_PASSWORD} # ✅ From environment, never hardcode
"""

ENCRYPTED = """\
session_stores:
  encrypted:
    backend: sql
    sql:
      driver: postgres
      ssl_mode: require
      ssl_cert: /path/to/client-cert.pem
      ssl_key: /path/to/client-key.pem
      ssl_root_cert: /path/to/ca-cert.pem
"""

WHO_AND_WHERE = "      user: hector\n      database: hector_sessions\n"


def section(text: str, name: str) -> Any:
    store = loads(text, environ=ENVIRON).session_stores[name]
    assert isinstance(store, SqlStoreSection)
    return store.sql


def test_two_stores_and_three_agents_load_as_they_are_written() -> None:
    config = loads(REFERENCE + AGENTS, environ=ENVIRON)
    assert [agent.session_store for agent in config.agents.values()] == [
        "production-db",
        "production-db",
        "dev-db",
    ]
    production, development = (section(REFERENCE + AGENTS, name) for name in ("production-db", "dev-db"))
    assert isinstance(production, PostgresSection)
    assert isinstance(development, SqliteSection)
    assert production.model_dump(exclude_unset=True, exclude={"password"}) == {
        "driver": "postgres",
        "host": "postgres.example.com",
        "port": 5432,
        "user": "hector",
        "database": "hector_sessions",
        "ssl_mode": "require",
        "max_conns": 50,
        "max_idle": 10,
        "conn_max_lifetime": 3600.0,
    }
    assert production.password
    assert production.password.get_secret_value() == "hunter2"
    assert (development.max_conns, development.max_idle) == (5, 2)


def test_three_agents_may_name_one_store() -> None:
    config = loads(SHARED, environ=ENVIRON)
    assert {agent.session_store for agent in config.agents.values()} == {"shared-db"}
    shared = section(SHARED, "shared-db")
    assert (shared.host, shared.port, shared.max_conns, shared.max_idle) == ("db.example.com", 5432, 200, 50)


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        (SQLITE, "local", SqliteSection),
        (POSTGRES, "postgres", PostgresSection),
        (MYSQL, "mysql", MySqlSection),
    ],
)
def test_each_kind_of_database_is_set_up_as_it_is_written(text: str, name: str, kind: type[Any]) -> None:
    found = section(AGENT + text, name)
    assert isinstance(found, kind)
    assert found.database in (Path("data/sessions.db"), "hector_sessions")


@pytest.mark.parametrize("driver", ["postgres", "mysql"])
def test_the_settings_of_the_pool_are_those_that_were_written(driver: str) -> None:
    pool = section(f"{AGENT}{POOL}{WHO_AND_WHERE}      driver: {driver}\n", "production")
    assert (pool.max_conns, pool.max_idle, pool.conn_max_lifetime) == (100, 25, 3600.0)


def test_tls_may_be_required_in_one_line() -> None:
    assert section(AGENT + SECURE + WHO_AND_WHERE, "secure-db").ssl_mode == "require"


@pytest.mark.parametrize("driver", ["postgres", "mysql"])
def test_certificates_of_both_sides_are_named_alike_on_both_servers(driver: str, tmp_path: Path) -> None:
    for name in ("client-cert.pem", "client-key.pem", "ca-cert.pem"):
        (tmp_path / name).touch()
    text = ENCRYPTED.replace("/path/to", str(tmp_path)).replace("postgres", driver)
    found = section(AGENT + text + WHO_AND_WHERE, "encrypted")
    assert (found.ssl_mode, found.ssl_cert, found.ssl_key, found.ssl_root_cert) == (
        "require",
        tmp_path / "client-cert.pem",
        tmp_path / "client-key.pem",
        tmp_path / "ca-cert.pem",
    )
