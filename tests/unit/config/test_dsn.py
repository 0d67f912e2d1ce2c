"""A database's address as one string."""

import contextlib
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hector.config import MySqlSection, PostgresSection, SqlStoreSection, loads
from hector.config.dsn import Dsn, read_dsn
from hector.domain.errors import ConfigError

SERVER = ["driver", "dsn", "url", "database", "host", "port", "user", "password", "options"]
SERVER += ["ssl_mode", "ssl_cert", "ssl_key", "ssl_root_cert", "connect_timeout", "max_conns"]
SECRET = "hunter2"

# What a server can be sent.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
# What people write who do not encode it.
secrets = st.lists(
    st.sampled_from([*"/?#@:&=%[], +{}$'\"\\", "%4", "%ff", "%00", "tcp(", "://", "x=", "://h?", "ä", "\n"]),
    max_size=6,
).map(lambda parts: SECRET.join(["", *parts, ""]))


def read(text: str) -> Dsn:
    sqlite = ["driver", "dsn", "url", "database", "synchronous"]
    return read_dsn(text, {"sqlite": sqlite, "postgres": [*SERVER, "schema"], "mysql": SERVER})


@pytest.mark.parametrize(
    ("dsn", "driver", "values"),
    [
        (
            "postgres://hector:pw@db.example.com:5432/sessions",
            "postgres",
            {
                "user": "hector",
                "password": "pw",
                "host": "db.example.com",
                "port": "5432",
                "database": "sessions",
            },
        ),
        ("postgresql://h/d", "postgres", {"host": "h", "database": "d"}),
        ("POSTGRES://h/d", "postgres", {"host": "h", "database": "d"}),
        ("mysql://u@h/d", "mysql", {"user": "u", "host": "h", "database": "d"}),
        ("mariadb://u:@h:/d", "mysql", {"user": "u", "host": "h", "database": "d"}),
        ("mysql://u:p@w@h/d", "mysql", {"user": "u", "password": "p@w", "host": "h", "database": "d"}),
        ("mysql://u:p:w@h/d", "mysql", {"user": "u", "password": "p:w", "host": "h", "database": "d"}),
        ("mysql://u:[w@h/d", "mysql", {"user": "u", "password": "[w", "host": "h", "database": "d"}),
        ("postgres://[::1]:6432/d", "postgres", {"host": "::1", "port": "6432", "database": "d"}),
        ("postgres://[fe80::1%25eth0]/d", "postgres", {"host": "fe80::1%eth0", "database": "d"}),
        ("postgres:///d?host=/run/postgresql&user=u", "postgres", {"host": "/run/postgresql", "user": "u"}),
        ("postgres://%2Frun%2Fpostgresql/d", "postgres", {"host": "/run/postgresql", "database": "d"}),
        ("mysql:///d?unix_socket=/run/mysqld.sock", "mysql", {"host": "/run/mysqld.sock", "database": "d"}),
        ("postgres://h?dbname=d&password=p%26q", "postgres", {"database": "d", "password": "p&q"}),
        ("postgres://h/d?application_name=a+b", "postgres", {"options": {"application_name": "a+b"}}),
        ("postgres://h/d?schema=s&max_conns=7&", "postgres", {"schema": "s", "max_conns": "7"}),
        ("  postgres://h/d\n", "postgres", {"host": "h", "database": "d"}),
        ("sqlite:///data/x.db", "sqlite", {"database": "data/x.db"}),
        ("sqlite:////var/lib/x%20y.db", "sqlite", {"database": "/var/lib/x y.db"}),
        ("sqlite:///~/me@home.db?synchronous=normal", "sqlite", {"synchronous": "normal"}),
        ("sqlite3://", "sqlite", {}),
    ],
)
def test_what_it_says(dsn: str, driver: str, values: dict[str, Any]) -> None:
    found = read(dsn)
    assert (found.driver, list(found.faults)) == (driver, [])
    assert {key: found.values.get(key) for key in values} == values


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=verify-ca&sslcert=c&sslkey=k&sslrootcert=r&connect_timeout=3",
        "ssl_mode=verify-ca&ssl_cert=c&ssl_key=k&ssl_root_cert=r&connect_timeout=3",
        "ssl-mode=verify-ca&ssl-cert=c&ssl-key=k&ssl-ca=r&connect-timeout=3",
    ],
)
@pytest.mark.parametrize("scheme", ["postgres", "mysql"])
def test_parameters_by_the_names_of_libpq_and_ours(scheme: str, parameters: str) -> None:
    assert read(f"{scheme}://h/d?{parameters}").values == {
        "host": "h",
        "database": "d",
        "ssl_mode": "verify-ca",
        "ssl_cert": "c",
        "ssl_key": "k",
        "ssl_root_cert": "r",
        "connect_timeout": "3",
    }


LIKE = (
    "wanted a URL like sqlite:///PATH, postgres://USER:PASSWORD@HOST:5432/DATABASE"
    " or mysql://USER:PASSWORD@HOST:3306/DATABASE"
)
GO = "has the form of Go's driver; wanted it as a URL: mysql://USER:PASSWORD@HOST:3306/DATABASE"
ENCODE = "in a user, password or database / is written %2F, ? %3F, # %23, @ %40 and % %25"
KNOWN = (
    "(known: database, host, port, user, password, ssl_mode, ssl_cert, ssl_key, ssl_root_cert,"
    " connect_timeout, max_conns)"
)


@pytest.mark.parametrize(
    ("dsn", "fault"),
    [
        ("", LIKE),
        ("db.example.com", LIKE),
        ("http://h/d", LIKE),
        ("postgre://h/d", f"{LIKE} (did you mean 'postgres'?)"),
        ("host=h user=u password=hunter2", f"is a list of key=value; {LIKE}, or each under a key of its own"),
        ("jdbc:postgresql://h/d?password=hunter2", f"is for JDBC; {LIKE}"),
        ("u:hunter2@tcp(h:3306)/d?parseTime=true", GO),
        ("u:hunter2@unix(/run/mysqld.sock)/d", GO),
        ("u:hunter2@/d", GO),
        ("mysql://u:hunter2@tcp(h:3306)/d", GO),
        ("postgresql+asyncpg://h/d", "names a driver of Python's after '+'; wanted postgresql:// alone"),
        ("mysql+pymysql://h/d", "names a driver of Python's after '+'; wanted mysql:// alone"),
        (
            "postgres://u:hunter2@a:1,b:2/d",
            "names several hosts; wanted one: the primary, or a name or proxy that leads to it",
        ),
        ("postgres://::1/d", "its host: wanted an IPv6 address in brackets, as in [::1]:5432"),
        ("postgres://[::1/d", "its host: wanted an IPv6 address in brackets, as in [::1]:5432"),
        ("postgres://u:%hunter2@h/d", "its password: a '%' that stands for itself is written %25"),
        ("postgres://u:hunter2%@h/d", "its password: a '%' that stands for itself is written %25"),
        ("postgres://u:%ffhunter2@h/d", "its password: is not UTF-8 when it is decoded"),
        ("postgres://u:hunter2%00@h/d", "its password: holds a NUL"),
        ("postgres://u:/hunter2@h/d", f"has a part that is not encoded: {ENCODE}"),
        ("postgres://u:?hunter2=1@h/d", f"has a part that is not encoded: {ENCODE}"),
        ("postgres://u:#hunter2@h/d", f"has a part that is not encoded: {ENCODE}"),
        ("postgres://h/d#hunter2", f"has a part that is not encoded: {ENCODE}"),
        ("postgres://h/d/e", f"its database: holds a '/'; {ENCODE}"),
        ("postgres://h/d?host=i", "gives its host twice; keep one"),
        ("mysql://h/d?ssl_mode=disable&ssl-mode=require", "gives its ssl_mode twice; keep one"),
        ("mysql://h/d?hunter2", "one of its parameters: wanted name=value"),
        (
            "mysql://h/d?sslmod=x",
            "its parameter 'sslmod': unknown (did you mean 'ssl_mode'?)",
        ),
        ("mysql://h/d?charset=x", f"its parameter 'charset': unknown {KNOWN}"),
        ("mysql://h/d?password=a&hunter2=x", f"one of its parameters: unknown {KNOWN}"),
        ("mysql://h/d?%20=x", f"one of its parameters: unknown {KNOWN}"),
        (
            "mysql://h/d?schema=x",
            "its parameter 'schema': is for driver postgres, and this is mysql",
        ),
        (
            "sqlite:///x?host=h",
            "its parameter 'host': is for driver postgres or mysql, and this is sqlite",
        ),
        (
            "mysql://h/d?application_name=x",
            f"its parameter 'application_name': unknown {KNOWN}",
        ),
        ("postgres://h/d?options=-c%20a=b", "its parameter 'options': wanted it under a key of its own"),
        (
            "sqlite://x.db",
            (
                "wanted sqlite:///PATH for a path from the folder in which Hector is started,"
                " sqlite:////PATH for one from the root"
            ),
        ),
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_of_it_shown(dsn: str, fault: str) -> None:
    faults = read(dsn).faults
    assert list(faults) == [fault]
    assert SECRET not in fault


def test_all_that_cannot_be_read_is_told_at_once() -> None:
    assert len(read("postgres+x://u%:p%@a,b/c/d?e=1&f&host=%&options=1").faults) == 9


def load(dsn: str, **more: str) -> SqlStoreSection:
    text = {
        "agents": {"a": {"llm": "gpt-4o"}},
        "session_stores": {"s": {"backend": "sql", "sql": {"dsn": dsn, **more}}},
    }
    store = loads(json.dumps(text).replace("${", "$${"), environ={}).session_stores["s"]
    assert isinstance(store, SqlStoreSection)
    return store


@given(texts, texts.filter(str.strip), texts.filter(str.strip))
@example("%41", "a/b", "?#@:[],&=+ %")
def test_any_password_user_and_database_survive_when_they_are_encoded(
    password: str, user: str, database: str
) -> None:
    encoded = [quote(text, safe="") for text in (user, password, database)]
    found = read("postgres://{}:{}@h/{}".format(*encoded))
    assert not found.faults
    assert found.values == {"user": user, "password": password, "host": "h", "database": database}


@settings(deadline=None)
@given(texts, st.sampled_from(["postgres", "mysql"]))
def test_any_password_reaches_the_section_and_is_not_shown(password: str, scheme: str) -> None:
    secret = SECRET + password
    store = load(f"{scheme}://u:{quote(secret, safe='')}@h/d")
    assert isinstance(store.sql, PostgresSection | MySqlSection)
    assert store.sql.password
    assert store.sql.password.get_secret_value() == secret
    assert SECRET not in f"{store} {store!r} {store.model_dump_json()} {store.model_dump()}"


@pytest.mark.parametrize(
    "form",
    [
        "postgres://u:{}@h:5432/d",
        "mysql://u:{}@h/d?sslmode=no&nonsense=1",
        "postgres://u:p@h:{0}/{0}?password={0}&sslmode={0}&{0}",
        "postgres://u:{}@a,b/d/e",
        "postgresql+asyncpg://u:{}@h/d",
        "u:{}@tcp(h:3306)/d",
        "u:{}@h",
        "host=h user=u password={}",
        "sqlite://u:{}@h/d",
        "sqlite:///x?password={}",
        "jdbc:mysql://h/d?password={}",
        "{}",
        "postgres:{}",
    ],
)
@settings(max_examples=60, deadline=None)
@given(secret=secrets)
def test_no_fault_shows_any_part_of_what_may_be_a_password(form: str, secret: str) -> None:
    for more in ({}, {"driver": "mysql", "max_conns": "1", "password": "x"}):
        try:
            shown = repr(load(form.format(secret), **more))
        except ConfigError as error:
            shown = str(error)
        assert SECRET not in shown


@settings(deadline=None)
@given(st.text() | st.text("postgres:/?#@[]=&%,x1"))
def test_any_text_is_read_or_told(text: str) -> None:
    with contextlib.suppress(ConfigError):
        load(text)
