"""`hector config check`."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hector.cli.check import check_config
from hector.cli.settings import Options, Source
from hector.domain.errors import ConfigError, StoreOpenError
from hector.storage.migrate import HECTOR
from hector.storage.opening import open_sqlite
from hector.storage.sqlite import SqliteSettings
from tests.servers.certificates import make_certificates

GOOD = """\
llms: {s: {type: scripted}}
session_stores: {main: {backend: memory}}
agents:
  one: {llm: s, session_store: main}
  two: {llm: s}
"""
BAD = "agents:\n  one:\n    llm: local\n    promt: x\n  two: {llm: local, session_store: nope}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


async def check(path: Path, *, connect: bool = False, as_json: bool = False) -> int:
    return await check_config(path, connect=connect, as_json=as_json)


async def test_a_sound_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD)
    assert await check(path) == 0
    assert capsys.readouterr().out == f"{path}: ok (2 agents, 1 session store)\n"


async def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        await check(written(tmp_path, BAD))
    assert [problem.line for problem in raised.value.problems] == [4, 5]


async def test_workers_with_sessions_of_their_own_are_told_before_the_start(tmp_path: Path) -> None:
    text = "server: {workers: 2}\nagents:\n  a: {llm: scripted}\nllms: {scripted: {type: scripted}}\n"
    with pytest.raises(ConfigError, match="each of 2 workers would have its own") as raised:
        await check(written(tmp_path, text))
    assert [problem.path for problem in raised.value.problems] == ["agents.a.session_store"]


async def test_a_program_is_given_the_faults_and_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, BAD)
    assert await check(path, as_json=True) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["problems"][0] == {
        "file": str(path),
        "line": 4,
        "path": "agents.one.promt",
        "text": "unknown key (did you mean 'prompt'?)",
    }


async def test_a_program_is_told_that_a_file_is_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await check(written(tmp_path, GOOD), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


async def test_what_is_wrong_with_the_providers_variables_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    path = written(tmp_path, "llms: {m: {type: openai, model: x}}\nagents: {a: {llm: m}, b: {llm: gpt-4o}}\n")
    with pytest.raises(ConfigError) as raised:
        await check(path)
    assert [problem.path for problem in raised.value.problems] == ["llms.m.host", "agents.b.llm"]
    assert all("OPENAI_BASE_URL holds no URL" in problem.text for problem in raised.value.problems)


@pytest.mark.parametrize("driver", ["postgres", "mysql"])
async def test_files_for_tls_that_cannot_work_are_told_without_a_connection(
    tmp_path: Path, driver: str
) -> None:
    files = make_certificates(tmp_path)
    (tmp_path / "notes").write_text("no certificate")
    path = written(
        tmp_path,
        f"""\
agents: {{a: {{llm: local}}}}
session_stores:
  sound: {{backend: sql, sql: {{driver: {driver}, user: u, database: d, ssl_cert: '{files.client.cert}',
    ssl_key: '{files.client.key}', ssl_root_cert: '{files.client.ca}'}}}}
  main:
    backend: sql
    sql:
      driver: {driver}
      user: u
      database: d
      ssl_cert: '{files.client.cert}'
      ssl_key: '{files.server.key}'
      ssl_root_cert: '{tmp_path}/notes'
  keyless: {{backend: sql, sql: {{driver: {driver}, user: u, database: d, ssl_cert: '{files.client.cert}'}}}}
  local: {{backend: sql, sql: {{driver: {driver}, user: u, database: d, host: /run,
    ssl_cert: '{tmp_path}/notes'}}}}
""",
    )
    with pytest.raises(ConfigError) as raised:
        await check(path)
    assert [(each.line, each.path, each.text) for each in raised.value.problems] == [
        (
            12,
            "session_stores.main.sql.ssl_key",
            f"{files.server.key} does not belong to the certificate in {files.client.cert}",
        ),
        (
            13,
            "session_stores.main.sql.ssl_root_cert",
            f"{tmp_path}/notes holds no certificate in PEM (no certificate or crl found)",
        ),
        (
            14,
            "session_stores.keyless.sql.ssl_key",
            f"not set, and ssl_cert ({files.client.cert}) holds no key",
        ),
    ]
    with pytest.raises(ConfigError):
        Source.named(path, Options()).settings()


class TestConnect:
    """`--connect`: each store as a start would find it."""

    @staticmethod
    def stores(folder: Path, **stores: str) -> Path:
        """With a database file for each store, by name."""
        lines = [
            f"  {name}: {{backend: sql, sql: {{driver: sqlite, database: '{folder / path}'}}}}\n"
            for name, path in stores.items()
        ]
        return written(folder, f"agents: {{a: {{llm: local}}}}\nsession_stores:\n{''.join(lines)}")

    @staticmethod
    async def make(path: Path) -> None:
        await (await open_sqlite("main", SqliteSettings(path))).close()

    @staticmethod
    def contents(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".yaml"}

    async def test_a_store_that_is_in_order(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        await self.make(tmp_path / "x.db")
        before = self.contents(tmp_path)
        assert await check(self.stores(tmp_path, main="x.db"), connect=True) == 0
        *_, told = capsys.readouterr().out.splitlines()
        version = f"SQLite {sqlite3.sqlite_version}"
        assert told == f"session store 'main': ok ({version}, {tmp_path}/x.db, schema version {HECTOR.head})"
        assert self.contents(tmp_path) == before

    async def test_a_store_that_is_being_written_to(self, tmp_path: Path) -> None:
        store = await open_sqlite("main", SqliteSettings(tmp_path / "x.db"))
        try:
            before = self.contents(tmp_path)
            assert await check(self.stores(tmp_path, main="x.db"), connect=True) == 0
            assert {*self.contents(tmp_path)} == {*before} == {"x.db", "x.db-wal", "x.db-shm"}
            assert self.contents(tmp_path)["x.db-wal"] == before["x.db-wal"]
        finally:
            await store.close()

    async def test_what_is_not_there_is_not_made(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.stores(tmp_path, main="data/deep/x.db")
        assert await check(path, connect=True) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "  the file is not there yet; a start makes it"
        assert not self.contents(tmp_path)

    async def test_nor_is_the_schema(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "x.db").touch()
        assert await check(self.stores(tmp_path, main="x.db"), connect=True) == 0
        assert (
            capsys.readouterr().out.splitlines()[-1] == "  its tables are not there yet; a start makes them"
        )
        assert self.contents(tmp_path) == {"x.db": b""}

    async def test_a_store_in_memory(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert await check(written(tmp_path, GOOD), connect=True) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "session store 'main': ok (in memory)"

    async def test_all_failures_are_told_and_not_only_the_first(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "text").write_text("no database, and long enough to be told from an empty one" * 20)
        with closing(sqlite3.connect(tmp_path / "other")) as other:
            other.execute("CREATE TABLE sessions (id)")
        with closing(sqlite3.connect(tmp_path / "newer")) as newer:
            newer.execute("CREATE TABLE hector_version (version_num)")
            newer.execute("INSERT INTO hector_version VALUES ('9999')")
            for table in ("sessions", "messages"):
                newer.execute(f"CREATE TABLE {table} (id)")
            newer.commit()
        (tmp_path / "folder").mkdir()
        names = ["text", "other", "newer", "folder", "text/x.db"]
        path = self.stores(tmp_path, ok="new", **{f"s{number}": name for number, name in enumerate(names)})
        assert await check(path, connect=True) == 2
        output = capsys.readouterr()
        assert [line.partition(":")[0] for line in output.out.splitlines()][1:] == [
            "session store 'ok'",
            "  the file is not there yet; a start makes it",
        ]
        failed = "Error: failed to connect to session store"
        assert output.err.splitlines() == [
            (
                f"{failed} 's0': {tmp_path}/text: the session store failed: file is not a database;"
                " name another file, or restore a backup"
            ),
            (
                f"{failed} 's1': {tmp_path}/other: its table 'sessions' was not made by Hector;"
                " give Hector a database of its own"
            ),
            (
                f"{failed} 's2': {tmp_path}/newer: its schema is of a newer Hector;"
                f" this one knows versions up to {HECTOR.head}: upgrade Hector"
            ),
            f"{failed} 's3': {tmp_path}/folder: is a directory; name a file in it",
            f"{failed} 's4': {tmp_path}/text/x.db: its folder cannot be used: {tmp_path}/text is a file",
        ]

    @pytest.mark.parametrize(
        ("place", "why"),
        [
            ("{folder}/text/x.db", "its folder cannot be used: {folder}/text is a file"),
            ("{folder}/text/deeper/x.db", "its folder cannot be used: {folder}/text is a file"),
            ("/dev/full", "is a device, a pipe or a socket; name a file"),
            pytest.param(
                "/proc/x.db",
                "its folder cannot be used: /proc holds no files",
                marks=pytest.mark.skipif(os.getuid() != 0, reason="who is not root may not write there"),
            ),
        ],
    )
    async def test_where_a_start_would_make_no_file_none_is_promised(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, why: str
    ) -> None:
        (tmp_path / "text").write_text("garbage")
        place, why = place.format(folder=tmp_path), why.format(folder=tmp_path)
        path = written(
            tmp_path,
            "agents: {a: {llm: local}}\n"
            f"session_stores: {{main: {{backend: sql, sql: {{driver: sqlite, database: '{place}'}}}}}}\n",
        )
        assert await check(path, connect=True) == 2
        with pytest.raises(StoreOpenError) as raised:
            await open_sqlite("main", SqliteSettings(Path(place)))
        assert str(raised.value) == f"failed to connect to session store 'main': {place}: {why}"
        assert capsys.readouterr().err == f"Error: {raised.value}\n"

    async def test_a_program_is_told_of_each_store(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await self.make(tmp_path / "x.db")
        (tmp_path / "folder").mkdir()
        assert await check(self.stores(tmp_path, main="x.db", bad="folder"), connect=True, as_json=True) == 2
        report = json.loads(capsys.readouterr().out)
        assert (report["ok"], report["problems"]) == (False, [])
        assert report["session_stores"] == [
            {
                "name": "main",
                "ok": True,
                "driver": "sqlite",
                "where": f"{tmp_path}/x.db",
                "server": f"SQLite {sqlite3.sqlite_version}",
                "schema": HECTOR.head,
                "warnings": [],
            },
            {
                "name": "bad",
                "ok": False,
                "error": (
                    f"failed to connect to session store 'bad': {tmp_path}/folder:"
                    " is a directory; name a file in it"
                ),
            },
        ]

    async def test_a_schema_that_no_start_may_make_is_a_failure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.stores(tmp_path, main="x.db")
        path.write_text(path.read_text().replace("backend: sql,", "backend: sql, auto_migrate: false,"))
        assert await check(path, connect=True) == 2
        assert "its schema is not there, and auto_migrate is off" in capsys.readouterr().err

    async def test_nothing_is_tried_where_the_file_is_at_fault(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError):
            await check(written(tmp_path, BAD), connect=True)
