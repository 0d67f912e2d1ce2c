"""What users are shown for PostgreSQL and MySQL, run as it is written against real servers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import HECTOR
from tests.e2e.shell import bash, documented
from tests.servers import MariaDbServer, PostgresServer

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

agents:
  assistant: {llm: gpt-4o, session_store: postgres}
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

agents:
  assistant: {llm: gpt-4o, session_store: mysql}
"""
MODEL = "llms: {gpt-4o: {type: scripted, model: recall}}\n"
"""In place of the provider's, whose libraries are slow to load."""

SET_UP_POSTGRES = """
# 2. Create database
createdb hector_sessions

# 3. Create user
psql -c "CREATE USER hector WITH PASSWORD 'secure-password';"
psql -c "GRANT ALL PRIVILEGES ON DATABASE hector_sessions TO hector;"
"""
SET_UP_MYSQL = """
# 2. Create database
mysql -u root -p -e "CREATE DATABASE hector_sessions;"
mysql -u root -p -e "CREATE USER 'hector'@'localhost' IDENTIFIED BY 'secure-password';"
mysql -u root -p -e "GRANT ALL PRIVILEGES ON hector_sessions.* TO 'hector'@'localhost';"
"""
TOLD, ASKED = "Remember: my project ID is ALPHA-789", "What is my project ID?"
TELL = rf"""
curl -s -X POST http://localhost:8091/v1/agents/assistant/message:send \
  -H "Content-Type: application/json" \
  -d '{{
    "message": {{
      "context_id": "my-session",
      "role": 1,
      "content": [{{"text": "{TOLD}"}}]
    }}
  }}'
"""
ASK = TELL.replace(TOLD, ASKED)
VERIFY = r"""
export HECTOR_DB_PASSWORD="secure-password"
# Until the server is ready; the next one waits by itself for the port.
sleep() { [ $1 = 2 ] || until curl -sfo ready http://localhost:8091/ready; do :; done; }
# 1. Start server
./hector serve --config config.yaml --port 8090 &
SERVER_PID=$!
sleep 3

# 2. Store information
curl -X POST http://localhost:8091/v1/agents/assistant/message:send \
  -H "Content-Type: application/json" \
  -d '{
    "message": {
      "context_id": "test-session",
      "role": 1,
      "content": [{"text": "My favorite color is blue"}]
    }
  }'

# 3. Restart server
kill $SERVER_PID
sleep 2
./hector serve --config config.yaml --port 8090 &
sleep 3

# 4. Verify agent remembers
RESPONSE=$(curl -s -X POST http://localhost:8091/v1/agents/assistant/message:send \
  -H "Content-Type: application/json" \
  -d '{
    "message": {
      "context_id": "test-session",
      "role": 1,
      "content": [{"text": "What is my favorite color?"}]
    }
  }')

if echo "$RESPONSE" | grep -q "blue"; then
    echo "✅ Session persistence works!"
else
    echo "❌ Session persistence failed"
fi
"""
CLI = r"""
export HECTOR_DB_PASSWORD="secure-password"
# First call - store information
./hector call --config config.yaml --session=work assistant \
  "Remember: meeting at 3pm"

# Later - agent remembers!
./hector call --config config.yaml --session=work assistant \
  "When is the meeting?"
echo "When is the meeting?" | ./hector chat --config config.yaml --session=work assistant
"""


SESSIONS = "SELECT id, agent_id, created_at FROM sessions;"
MESSAGES = "SELECT session_id, role, left(content, 50) FROM messages;"


@dataclass(frozen=True, slots=True)
class Ended:
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where hector and a server are installed, and nothing is set up."""

    folder: Path
    sockets: Mapping[int, Path]
    environ: Mapping[str, str]
    set_up: str
    is_up: tuple[str, str]
    """A command that tells whether the server is up, and a pattern of what it says then."""
    sql: str
    """A command that takes statements of user hector from its standard input, and prints no headings."""
    separator: str
    """Between its columns."""
    maintenance: str
    backup: str
    """What the script on the page about backups begins with."""

    def bash(self, script: str) -> Ended:
        # What is asked for when the commands of the set-up say `-p`.
        typed = "superuser\n" * 3
        ended = bash(self.folder, script, servers=self.sockets, environ=self.environ, typed=typed)
        return Ended(ended.stdout, ended.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With `./hector`, as the documentation has it, and a home for the configurations of other programs."""
    (tmp_path / "hector").symlink_to(HECTOR)
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
async def postgres(folder: Path, own_postgres: PostgresServer) -> Machine:
    """Who types is the server's superuser, as after `sudo -u postgres`, and knows the passwords."""
    (folder / "config.yaml").write_text(POSTGRES + MODEL)
    home = folder / "home"
    passwords = home / ".pgpass"
    passwords.write_text("*:*:*:postgres:superuser\n*:*:*:hector:secure-password\n")
    passwords.chmod(0o600)
    db = await own_postgres.create_database()
    await db.run("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'superuser'", admin=True)
    socket = db.socket / f".s.PGSQL.{db.port}"
    return Machine(
        folder,
        {5432: socket},
        {"HOME": str(home), "PGHOST": str(home), "PGUSER": "postgres"},
        SET_UP_POSTGRES,
        ("pg_isready -h localhost -p 5432", r"localhost:\d{4,5} - accepting connections"),
        "psql -h localhost -U hector hector_sessions --no-psqlrc --tuples-only --no-align",
        "|",
        "VACUUM ANALYZE sessions;\nVACUUM ANALYZE messages;",
        "# PostgreSQL",
    )


@pytest.fixture
async def mysql(folder: Path, own_mysql: MariaDbServer) -> Machine:
    (folder / "config.yaml").write_text(MYSQL + MODEL)
    home = folder / "home"
    db = await own_mysql.create_database()
    await db.run(
        "CREATE USER root@localhost IDENTIFIED BY 'superuser'",
        "GRANT ALL PRIVILEGES ON *.* TO root@localhost WITH GRANT OPTION",
        admin=True,
    )
    (home / ".my.cnf").write_text(f"[client]\nsocket={db.socket}\nuser=hector\npassword=secure-password\n")
    return Machine(
        folder,
        {3306: db.socket},
        {"HOME": str(home)},
        SET_UP_MYSQL,
        ("mysqladmin ping -h localhost", "mysqld is alive"),
        "mysql -h localhost hector_sessions --skip-column-names",
        "\t",
        "OPTIMIZE TABLE sessions;\nOPTIMIZE TABLE messages;",
        "# MariaDB",
    )


@pytest.fixture(params=["postgres", "mysql"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each in turn."""
    found: Machine = request.getfixturevalue(request.param)
    return found


def test_from_the_set_up_to_a_fresh_schema(machine: Machine) -> None:
    up, says = machine.is_up
    ended = machine.bash(f"""
{machine.set_up}
{up}
export HECTOR_DB_PASSWORD="secure-password"
mkfifo first second third
./hector serve --config config.yaml > first &
grep -m1 '^ready' first
{TELL}
pkill hector
./hector serve --config config.yaml > second &
grep -m1 '^ready' second
{ASK}
echo ---
{machine.sql} <<< "{SESSIONS}"
echo ---
{machine.sql} <<< "{MESSAGES}"
echo ---
{machine.sql} <<< "{machine.maintenance}"
{ASK}
pkill hector
wait
echo ---
{machine.sql} <<< "DROP TABLE messages; DROP TABLE sessions;"
./hector serve --config config.yaml > third &
grep -m1 '^ready' third
{ASK}
""")
    talk, sessions, messages, maintained, dropped = ended.out.split("---\n")
    assert re.search(says, talk)
    told, asked = replies(talk)
    assert (told, asked) == (
        "Got it: Remember: my project ID is ALPHA-789",
        "You told me: Remember: my project ID is ALPHA-789",
    )
    columns = sessions.strip().split(machine.separator)
    assert columns[:2] == ["my-session", "assistant"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", columns[2])
    assert [line.split(machine.separator) for line in messages.splitlines()] == [
        ["my-session", role, f'[{{"text": "{text}"}}]'[:50]]
        for role, text in (("1", TOLD), ("2", told), ("1", ASKED), ("2", asked))
    ]
    assert replies(maintained) == [asked], ended.err
    assert replies(dropped) == ["I do not know."], ended.err


def test_the_verification_script_verifies(machine: Machine) -> None:
    ended = machine.bash(machine.set_up + VERIFY)
    assert ended.out.endswith("✅ Session persistence works!\n"), ended.err


def test_the_command_line_resumes_by_session(machine: Machine) -> None:
    ended = machine.bash(machine.set_up + CLI)
    answers = ["Got it: Remember: meeting at 3pm", *["You told me: Remember: meeting at 3pm"] * 2]
    assert ended.out.splitlines()[-3:] == answers, ended.err
    resumed = [f"session work: {what}" for what in ("new", "resumed, 2 messages", "resumed, 4 messages")]
    assert re.findall("session work: .*", ended.err) == resumed


def test_the_backup_is_restored_as_it_was(machine: Machine) -> None:
    take, restore = documented("deployment.md", machine.backup).split("\n# Restore")
    ended = machine.bash(f"""
{machine.set_up}
export HECTOR_DB_PASSWORD="secure-password"
./hector call --session=before assistant "{TOLD}"
{take}
./hector call --session=after assistant "{TOLD}"
echo ---
# Restore{restore}
{machine.sql} <<< "SELECT id FROM sessions;"
./hector call --session=before assistant "{ASKED}"
./hector call --session=after assistant "{ASKED}"
""")
    restored = ended.out.partition("---\n")[2]
    assert restored == f"before\nYou told me: {TOLD}\nI do not know.\n", ended.err


def replies(text: str) -> list[str]:
    return re.findall(r'"artifacts":.*?"text":"([^"]*)"', text)
