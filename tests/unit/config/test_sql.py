"""Session stores in SQL: what their sections say, and what is told of those with faults."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hector.config import (
    Config,
    MySqlSection,
    PostgresSection,
    SqliteSection,
    SqlSection,
    SqlStoreSection,
    loads,
)
from hector.domain.errors import ConfigError
from hector.storage.mysql import connect as mysql_connect
from hector.storage.postgres import connect as postgres_connect

LEAST = {"user": "u", "database": "d"}
ENVIRON = {"DB_URL": "postgresql://u:hunter2@h/d"}


def text_with(sql: Mapping[str, Any], **store: Any) -> str:
    """One key a line, so that a line tells which is meant."""
    keys = "".join(f"      {key}: {json.dumps(value)}\n" for key, value in sql.items())
    more = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in store.items())
    return f"agents: {{a: {{llm: m}}}}\nsession_stores:\n  s:\n    backend: sql\n{more}    sql:\n{keys}"


def section(**keys: Any) -> SqlSection:
    store = loads(text_with(keys), environ=ENVIRON).session_stores["s"]
    assert isinstance(store, SqlStoreSection)
    return store.sql


def postgres(**keys: Any) -> PostgresSection:
    found = section(driver="postgres", **(LEAST | keys))
    assert isinstance(found, PostgresSection)
    return found


def told(**keys: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text_with(keys), environ=ENVIRON)
    return [
        f"{problem.path.removeprefix('session_stores.s.sql.')}: {problem.text}"
        for problem in caught.value.problems
    ]


def written(driver: str) -> list[str]:
    """As documented."""
    return {
        "sqlite": ["database", "max_conns", "max_idle", "conn_max_lifetime", "dsn", "url", "synchronous"],
        "mysql": SERVER_KEYS,
        "postgres": [*SERVER_KEYS, "schema"],
    }[driver]


SERVER_KEYS = ["database", "max_conns", "max_idle", "conn_max_lifetime", "dsn", "url"]
SERVER_KEYS += ["host", "port", "user", "password", "ssl_mode", "ssl_cert", "ssl_key", "ssl_root_cert"]
SERVER_KEYS += ["connect_timeout", "statement_timeout", "options"]


class TestSections:
    @pytest.mark.parametrize(
        ("written", "kind"),
        [
            ("sqlite", SqliteSection),
            ("sqlite3", SqliteSection),
            ("postgres", PostgresSection),
            ("postgresql", PostgresSection),
            ("PostgreSQL", PostgresSection),
            ("mysql", MySqlSection),
            ("MariaDB", MySqlSection),
        ],
    )
    def test_a_driver_has_one_name_whatever_it_was_called(self, written: str, kind: type) -> None:
        keys = {} if kind is SqliteSection else {"user": "u"}
        found = section(driver=written, database="d", **keys)
        assert type(found) is kind
        assert (
            found.driver
            == {SqliteSection: "sqlite", PostgresSection: "postgres", MySqlSection: "mysql"}[kind]
        )

    def test_the_least_that_a_server_needs_has_every_default(self) -> None:
        found = postgres()
        assert (found.host, found.port, found.password, found.schema_name) == ("localhost", 5432, None, None)
        assert (found.max_conns, found.max_idle, found.conn_max_lifetime) == (20, 5, 3600.0)
        assert (found.connect_timeout, found.statement_timeout, found.options) == (10.0, 30.0, {})
        assert (found.ssl_mode, found.ssl_cert, found.ssl_key, found.ssl_root_cert) == (
            "prefer",
            None,
            None,
            None,
        )
        mysql = section(driver="mysql", **LEAST)
        assert isinstance(mysql, MySqlSection)
        assert mysql.port == 3306

    @pytest.mark.parametrize(
        ("max_conns", "max_idle"), [(2, 1), (3, 1), (7, 1), (8, 2), (50, 12), ("100", 25), (200, 50)]
    )
    def test_a_quarter_of_the_connections_may_be_idle(self, max_conns: object, max_idle: int) -> None:
        assert postgres(max_conns=max_conns).max_idle == max_idle

    def test_no_connection_needs_to_be_kept(self) -> None:
        assert postgres(max_idle=0).max_idle == 0

    @pytest.mark.parametrize("host", ["db", "10.0.0.1", "::1", "my_db.default.svc", "/var/run/postgresql"])
    def test_where_a_server_is(self, host: str) -> None:
        assert postgres(host=host).host == host

    def test_settings_of_the_servers_session_are_texts(self) -> None:
        options = {"work_mem": "64MB", "jit": False, "geqo": True, "x.y": 3, "seq_page_cost": 0.5}
        assert postgres(options=options).options == {
            "work_mem": "64MB",
            "jit": "off",
            "geqo": "on",
            "x.y": "3",
            "seq_page_cost": "0.5",
        }

    def test_certificates_are_files_that_are_there(self, tmp_path: Path) -> None:
        file = tmp_path / "x.pem"
        file.touch()
        found = postgres(
            ssl_cert=str(file), ssl_key=str(file), ssl_root_cert=str(file), ssl_mode="verify-full"
        )
        assert (found.ssl_cert, found.ssl_key, found.ssl_root_cert) == (file, file, file)

    def test_a_store_waits_for_its_server_and_makes_its_schema_unless_it_is_told_not_to(self) -> None:
        sql = {"driver": "sqlite", "database": "x.db"}
        store = loads(text_with(sql), environ={}).session_stores["s"]
        other = loads(text_with(sql, connect_retry="0", auto_migrate=False), environ={}).session_stores["s"]
        assert isinstance(store, SqlStoreSection)
        assert isinstance(other, SqlStoreSection)
        assert (store.connect_retry, store.auto_migrate) == (60.0, True)
        assert (other.connect_retry, other.auto_migrate) == (0.0, False)

    def test_a_configuration_made_in_code_may_have_a_dsn_too(self) -> None:
        config = Config.model_validate(
            {
                "agents": {"a": {"llm": "m"}},
                "session_stores": {"s": {"backend": "sql", "sql": {"dsn": "mariadb://u:p@h/d"}}},
            }
        )
        store = config.session_stores["s"]
        assert isinstance(store, SqlStoreSection)
        assert isinstance(store.sql, MySqlSection)
        assert store.sql.host == "h"
        assert Config.model_validate(config) == config

    def test_nothing_can_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            postgres().port = 1

    @pytest.mark.parametrize(
        "sql",
        [
            {"driver": "mysql", "password": "hunter2", **LEAST},
            {"dsn": "postgres://u:hunter2@h/d"},
            {"url": "mysql://u@h/d?password=hunter2"},
            {"url": "${DB_URL}", "schema": "x"},
        ],
    )
    def test_no_password_is_shown(self, sql: dict[str, Any]) -> None:
        config = loads(text_with(sql), environ=ENVIRON)
        assert "hunter2" not in json.dumps(config.shown()) + repr(config) + str(config)
        shown = config.shown()["session_stores"]["s"]["sql"]
        masked = {key for key in ("password", "dsn", "url") if shown[key] == "**********"}
        assert masked == {"password", *({"dsn", "url"} & sql.keys())}
        assert shown.get("schema") == sql.get("schema")


class TestDsn:
    @pytest.mark.parametrize("key", ["dsn", "url"])
    def test_what_it_says_stands_under_the_other_keys(self, key: str) -> None:
        dsn = "postgres://hector:s%3Acret@db:6432/x?sslmode=require&max_conns=8&application_name=y&schema=z"
        found = section(**{key: dsn})
        assert isinstance(found, PostgresSection)
        assert (found.driver, found.host, found.port, found.database) == ("postgres", "db", 6432, "x")
        assert found.password
        assert (found.user, found.password.get_secret_value()) == ("hector", "s:cret")
        assert (found.ssl_mode, found.max_conns, found.max_idle) == ("require", 8, 2)
        assert (found.options, found.schema_name) == ({"application_name": "y"}, "z")

    @pytest.mark.parametrize("driver", ["postgres", "postgresql", None])
    def test_it_may_come_from_the_environment_and_the_driver_may_be_said_too(
        self, driver: str | None
    ) -> None:
        found = section(driver=driver, dsn="${DB_URL}")
        assert isinstance(found, PostgresSection)
        assert found.host == "h"

    @pytest.mark.parametrize(
        ("dsn", "path"),
        [
            ("sqlite:///data/x.db", Path("data/x.db")),
            ("sqlite:////data/x.db", Path("/data/x.db")),
            ("sqlite:///~/x.db", Path.home() / "x.db"),
        ],
    )
    def test_three_slashes_are_relative_and_four_absolute(self, dsn: str, path: Path) -> None:
        found = section(dsn=f"{dsn}?synchronous=normal")
        assert isinstance(found, SqliteSection)
        assert (found.database, found.synchronous) == (path, "normal")

    def test_what_it_does_not_say_may_be_said_beside_it(self) -> None:
        found = section(
            dsn="postgres://h/d?application_name=y",
            user="u",
            password="p",
            host="h",
            port=None,
            options={"jit": False, "application_name": "y"},
        )
        assert isinstance(found, PostgresSection)
        assert (found.user, found.port, found.options) == ("u", 5432, {"jit": "off", "application_name": "y"})

    def test_what_is_said_twice_must_be_the_same(self) -> None:
        dsn = "postgres://u:hunter2@h:5432/d?application_name=y"
        assert told(dsn=dsn, host="i", port=5432, password="hunter3", options={"application_name": "z"}) == [
            "host: is also in dsn, with another value; keep one",
            "password: is also in dsn, with another value; keep one",
            "options.application_name: is also in dsn, with another value; keep one",
        ]

    def test_another_driver_than_its_own_is_the_one_problem(self) -> None:
        assert told(dsn="postgres://u:hunter2@h/d", driver="mariadb", nonsense=1, password="${P}") == [
            "driver: is mysql, and dsn is for postgres; keep one"
        ]

    @pytest.mark.parametrize("driver", ["oracle", ["postgres"], {"a": 1}, 5])
    def test_an_unknown_driver_beside_it_is_the_one_problem(self, driver: object) -> None:
        (problem,) = told(dsn="postgres://u:%hunter2@h/d", driver=driver, nonsense=1)
        assert problem.startswith("driver: wanted sqlite, postgres or mysql, found ")

    def test_one_of_its_names_is_enough(self) -> None:
        assert told(dsn="postgres://u:hunter2@h/d", url="postgres://u:hunter2@h/d") == [
            "url: is another name for dsn; keep one"
        ]

    def test_a_bad_value_in_it_is_told_where_it_stands_without_being_shown(self) -> None:
        dsn = "postgres://h:hunter2/d?sslmode=hunter2&connect_timeout=0&sslrootcert=/hunter2&max_conns=2&max_idle=3"
        assert sorted(told(url=dsn)) == [
            "url: its connect_timeout: wanted more than 0s",
            "url: its port: wanted a whole number",
            "url: its ssl_mode: wanted disable, prefer, require, verify-ca or verify-full",
            "url: its ssl_root_cert: wanted a file that can be read (no such file or directory)",
            "url: its user: is missing",
        ]
        assert told(url="postgres://u@h/d?max_conns=2&max_idle=3") == [
            "url: its max_idle: wanted at most max_conns, which is 2, found 3"
        ]

    def test_what_it_may_have_said_is_not_missing_when_it_cannot_be_read(self) -> None:
        assert told(dsn="postgres://u:%hunter2@h", port=0) == [
            "dsn: its password: a '%' that stands for itself is written %25",
            "port: wanted at least 1, found 0",
        ]
        assert told(dsn="u:hunter2@tcp(h:3306)/d") == [
            "dsn: has the form of Go's driver; wanted it as a URL: mysql://USER:PASSWORD@HOST:3306/DATABASE"
        ]

    @pytest.mark.parametrize("dsn", [5, "", [1], {"a": 1}, True])
    @pytest.mark.parametrize("more", [{}, {"driver": "postgres"}, {"driver": "sqlite"}])
    def test_what_is_no_text_is_no_url(self, dsn: object, more: dict[str, str]) -> None:
        (problem,) = told(dsn=dsn, **more)
        assert problem.startswith("dsn: wanted a URL like")

    @pytest.mark.parametrize("more", [{}, {"driver": "mysql"}])
    def test_an_unset_variable_is_the_one_problem(self, more: dict[str, str]) -> None:
        (problem,) = told(dsn="${NO_URL}", **more)
        assert problem.startswith("dsn: environment variable NO_URL is not set")

    @pytest.mark.parametrize("driver", ["sqlite", "postgres", "mysql"])
    @pytest.mark.parametrize("key", ["driver", "database", "host", "user", "schema"])
    def test_a_url_under_another_key_is_not_shown(self, driver: str, key: str) -> None:
        problems = told(**{"driver": driver, **LEAST, key: "postgres://u:hunter2@h/d"})
        assert problems
        assert "hunter2" not in "".join(problems)


class TestFaults:
    @pytest.mark.parametrize("driver", ["postgres", "mysql"])
    def test_who_signs_in_where_is_needed(self, driver: str) -> None:
        assert told(driver=driver) == ["database: is missing", "user: is missing"]

    @pytest.mark.parametrize(
        ("driver", "key", "text"),
        [
            ("sqlite", "host", "is a key of driver: postgres or mysql, and this is driver: sqlite"),
            ("sqlite", "ssl_mode", "is a key of driver: postgres or mysql, and this is driver: sqlite"),
            ("sqlite", "schema", "is a key of driver: postgres, and this is driver: sqlite"),
            ("postgres", "synchronous", "is a key of driver: sqlite, and this is driver: postgres"),
            ("mysql", "synchronous", "is a key of driver: sqlite, and this is driver: mysql"),
        ],
    )
    def test_a_key_of_another_driver_is_told_as_that(self, driver: str, key: str, text: str) -> None:
        keys = {"driver": driver, "database": "d", key: "x"} | ({} if driver == "sqlite" else {"user": "u"})
        assert told(**keys) == [f"{key}: {text}, which has {', '.join(written(driver))}"]

    def test_the_schema_of_mysql_is_its_database(self) -> None:
        assert told(driver="mysql", schema="x", **LEAST) == [
            "schema: is PostgreSQL's; MySQL's schema is its database, which the key database names"
        ]

    @pytest.mark.parametrize(
        ("keys", "problem"),
        [
            (
                {"ssl_mode": "verify_full"},
                (
                    "ssl_mode: wanted disable, prefer, require, verify-ca or verify-full, found 'verify_full'"
                    " (did you mean 'verify-full'?)"
                ),
            ),
            ({"port": 0}, "port: wanted at least 1, found 0"),
            ({"port": 65536}, "port: wanted at most 65535, found 65536"),
            (
                {"host": "a,b"},
                "host: wanted one host: the primary, or a name or proxy that leads to it, found 'a,b'",
            ),
            (
                {"host": "[::1]"},
                (
                    "host: wanted a host name or an IP address without brackets and port,"
                    " or the path of a Unix socket, found '[::1]'"
                ),
            ),
            ({"host": "u:hunter2@h"}, "host: wanted a host alone; a URL is written under dsn"),
            ({"user": "  "}, "user: wanted a text that is not empty, found '  '"),
            ({"user": "postgres://u:hunter2@h/d"}, "user: wanted a user's name; a URL is written under dsn"),
            (
                {"database": "mysql://u:hunter2@h/d"},
                "database: wanted a database's name; a URL is written under dsn",
            ),
            (
                {"driver": "mysql://u:hunter2@h/d"},
                "driver: wanted sqlite, postgres or mysql; a URL is written under dsn",
            ),
            ({"password": 31337}, "password: wanted a text; write it in quotes"),
            ({"password": "hunter2\0"}, "password: wanted a text without NUL and lone surrogates"),
            ({"max_conns": 1}, "max_conns: wanted at least 2, found 1"),
            ({"max_idle": 21}, "max_idle: wanted at most max_conns, which is 20, found 21"),
            ({"connect_timeout": 0}, "connect_timeout: wanted more than 0s, found 0"),
            ({"statement_timeout": 0}, "statement_timeout: wanted 0.01s to 86400s, found 0"),
            (
                {"schema": "pg_x"},
                (
                    "schema: wanted a name that does not begin with pg_, for those are PostgreSQL's own,"
                    " found 'pg_x'"
                ),
            ),
            ({"schema": "ä" * 32}, f"schema: wanted 1 to 63 bytes, found '{'ä' * 32}'"),
            ({"ssl_cert": "/"}, "ssl_cert: wanted a file that can be read (it is none), found '/'"),
            (
                {"ssl_root_cert": "/no/such"},
                "ssl_root_cert: wanted a file that can be read (no such file or directory), found '/no/such'",
            ),
            ({"ssl_key": __file__}, "ssl_key: is the key of a certificate; wanted ssl_cert beside it"),
            ({"options": "a=b"}, "options: wanted a mapping of names, found a text"),
            ({"options": {"a": [1]}}, "options.a: wanted a text, a number, true or false, found a list"),
            (
                {"options": {"A": 1}},
                "options.A: wanted the name of a server's setting, of a-z 0-9 _ and a dot",
            ),
            (
                {"options": {"a;b": 1}},
                "options.a;b: wanted the name of a server's setting, of a-z 0-9 _ and a dot",
            ),
        ],
    )
    def test_each_says_what_was_wanted_and_what_was_found(self, keys: dict[str, Any], problem: str) -> None:
        assert told(**{"driver": "postgres", **LEAST, **keys}) == [problem]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        file.touch(mode=0)
        (problem,) = told(driver="postgres", ssl_cert=str(file), **LEAST)
        assert "(permission denied)" in problem

    @pytest.mark.parametrize(
        ("driver", "name"),
        [
            *[
                ("postgres", name)
                for name in ("search_path", "client_encoding", "timezone", "statement_timeout")
            ],
            *[
                ("mysql", name)
                for name in ("sql_mode", "autocommit", "time_zone", "names", "max_statement_time")
            ],
            *[("mysql", name) for name in ("character_set_client", "collation_connection", "tx_isolation")],
            *[(each, "transaction_isolation") for each in ("postgres", "mysql")],
            *[(each, "default_transaction_isolation") for each in ("postgres", "mysql")],
            *[(each, "transaction_read_only") for each in ("postgres", "mysql")],
        ],
    )
    def test_a_setting_that_hector_makes_itself_is_refused_with_the_reason(
        self, driver: str, name: str
    ) -> None:
        (problem,) = told(driver=driver, options={name: "x"}, **LEAST)
        assert problem.startswith(f"options.{name}: cannot be set: ")

    @pytest.mark.parametrize(
        ("driver", "names"), [("postgres", postgres_connect._FIXED), ("mysql", mysql_connect._FIXED)]
    )
    def test_what_a_connection_would_refuse_is_refused_here(self, driver: str, names: frozenset[str]) -> None:
        refused = [
            problem.partition(": ")[0]
            for problem in told(driver=driver, options=dict.fromkeys(names, "x"), **LEAST)
        ]
        assert sorted(refused) == sorted(f"options.{name}" for name in names)

    def test_all_are_told_at_once(self) -> None:
        problems = told(
            dsn="postgres://u:hunter2@h:x/d?nonsense=1&sslmode=x",
            user="v",
            max_conns=1,
            options={"search_path": "x", "A": 1, "b": [1]},
            synchronous="full",
            foo=1,
        )
        assert [problem.partition(": ")[0] for problem in problems] == [
            "dsn",
            "dsn",
            "dsn",
            "user",
            "max_conns",
            "options.A",
            "options.b",
            "options.search_path",
            "synchronous",
            "foo",
        ]
