"""The commands and configurations that users are shown, run as they are written."""

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import HECTOR
from tests.e2e.shell import bash, documented

QUICK_START = """\
# config.yaml
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db
      max_conns: 10
      max_idle: 2

agents:
  assistant:
    llm: "gpt-4o"
    session_store: "main-db"  # Reference the global store
    memory:
      working:
        strategy: "summary_buffer"
        budget: 4000
"""

BEFORE_MIGRATION = """\
agents:
  assistant:
    llm: "gpt-4o"
    memory:
      working:
        strategy: "summary_buffer"
"""

AFTER_MIGRATION = """\
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db

agents:
  assistant:
    llm: "gpt-4o"
    session_store: "main-db"  # ← Add this line
    memory:
      working:
        strategy: "summary_buffer"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With `./hector`, as the documentation has it."""
    (tmp_path / "hector").symlink_to(HECTOR)
    (tmp_path / "config.yaml").write_text(QUICK_START)
    return tmp_path


def test_the_quick_start_remembers_across_a_restart(folder: Path) -> None:
    # Its commands, and what a person does between them: start the server elsewhere, and see it ready.
    ended = bash(
        folder,
        r"""
mkfifo first second
./hector serve --config config.yaml > first &
grep -m1 '^ready' first

# First conversation
curl -X POST http://localhost:8091/v1/agents/assistant/message:send \
  -H "Content-Type: application/json" \
  -d '{
    "message": {
      "context_id": "my-session",
      "role": 1,
      "content": [{"text": "Remember: my project ID is ALPHA-789"}]
    }
  }'

# Restart server
pkill hector
./hector serve --config config.yaml > second &
grep -m1 '^ready' second

# Resume conversation - agent remembers!
curl -X POST http://localhost:8091/v1/agents/assistant/message:send \
  -H "Content-Type: application/json" \
  -d '{
    "message": {
      "context_id": "my-session",
      "role": 1,
      "content": [{"text": "What is my project ID?"}]
    }
  }'
""",
    )
    first, second = re.findall(r'"artifacts":.*?"text":"([^"]*)"', ended.stdout)
    assert first == "Got it: Remember: my project ID is ALPHA-789"
    assert second == "You told me: Remember: my project ID is ALPHA-789"
    ready = re.findall(r"ready: (\S+)  grpc: \S+  agents: assistant  \(pid (\d+)\)", ended.stdout)
    assert len({url for url, _ in ready}) == 1
    assert len({pid for _, pid in ready}) == 2


def test_the_verification_script_verifies(folder: Path) -> None:
    ended = bash(
        folder,
        r"""#!/bin/bash

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
""",
    )
    assert ended.stdout.endswith("✅ Session persistence works!\n"), ended.stderr


def test_calls_resume_by_session(folder: Path) -> None:
    ended = bash(
        folder,
        r"""
# First call - store information
./hector call --config config.yaml --session=work assistant \
  "Remember: meeting at 3pm"

# Later - agent remembers!
./hector call --config config.yaml --session=work assistant \
  "When is the meeting?"
""",
    )
    assert ended.stdout == ("Got it: Remember: meeting at 3pm\nYou told me: Remember: meeting at 3pm\n")
    assert ended.stderr == "session work: new\nsession work: resumed, 2 messages\n"


def test_a_session_may_have_a_generated_id_and_the_configuration_its_default_name(folder: Path) -> None:
    ended = bash(
        folder,
        r"""
SESSION_ID=$(uuidgen)  # Generate unique ID
./hector call --session=$SESSION_ID assistant "Hello"
./hector call --session=$SESSION_ID assistant "Continue"
sqlite3 ./data/sessions.db "SELECT id, agent_id, created_at FROM sessions;"
echo $SESSION_ID
""",
    )
    *_, row, session = ended.stdout.splitlines()
    assert ended.stderr == f"session {session}: new\nsession {session}: resumed, 2 messages\n"
    assert re.fullmatch(rf"{session}\|assistant\|\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", row)


def test_a_chat_has_an_id_that_it_shows_and_resumes(folder: Path) -> None:
    ended = bash(
        folder,
        r"""
echo "My name is Ada" | ./hector chat --config config.yaml --session=my-chat assistant
echo "What is my name?" | ./hector chat --config config.yaml --session=my-chat assistant
echo "Hello" | ./hector chat --config config.yaml assistant
""",
    )
    assert re.fullmatch(
        "Got it: My name is Ada\n"
        "You told me: My name is Ada\n"
        r"💾 Session ID: (cli-chat-\d{10})"
        "\n"
        r"   Resume later with: --session=\1"
        "\n"
        "Got it: Hello\n",
        ended.stdout,
    )
    assert re.fullmatch(
        "session my-chat: new\nsession my-chat: resumed, 2 messages\n" r"session cli-chat-\d{10}: new\n",
        ended.stderr,
    )


def test_migration_needs_no_other_change(folder: Path) -> None:
    told = './hector call --session=s assistant "My favorite color is blue"\n'
    asked = './hector call --session=s assistant "What is my favorite color?"\n'

    (folder / "config.yaml").write_text(BEFORE_MIGRATION)
    before = bash(folder, told + asked)
    assert "I do not know." in before.stdout
    assert "agent assistant has no session_store: this session ends with this command" in before.stderr
    shutil.rmtree(folder / ".tools")

    (folder / "config.yaml").write_text(AFTER_MIGRATION)
    after = bash(folder, told + asked)
    assert "You told me: My favorite color is blue" in after.stdout
    assert "session_store" not in after.stderr


def test_the_database_can_be_looked_into(folder: Path) -> None:
    ended = bash(
        folder,
        r"""
./hector call --session=your-session-id assistant "My favorite color is blue" > /dev/null 2>&1
ls -la ./data/sessions.db && sqlite3 ./data/sessions.db "SELECT 1;"
echo ---
sqlite3 ./data/sessions.db "SELECT * FROM sessions;"
echo ---
sqlite3 ./data/sessions.db \
  "SELECT session_id, role, substr(content, 1, 50) FROM messages;"
echo ---
sqlite3 ./data/sessions.db "SELECT COUNT(*) FROM sessions;"
echo ---
sqlite3 ./data/sessions.db \
  "SELECT id, agent_id FROM sessions WHERE id='your-session-id';"
""",
    )
    alive, rows, messages, number, found = ended.stdout.split("---\n")
    assert alive.endswith("\n1\n")
    assert "your-session-id" in rows
    assert messages == (
        'your-session-id|1|[{"text": "My favorite color is blue"}]\n'
        'your-session-id|2|[{"text": "Got it: My favorite color is blue"}]\n'
    )
    assert (number, found) == ("1\n", "your-session-id|assistant\n")


def test_a_removed_database_is_made_anew(folder: Path) -> None:
    ended = bash(
        folder,
        r"""
./hector call --session=s assistant "My favorite color is blue"
rm ./data/sessions.db
./hector call --session=s assistant "What is my favorite color?"
""",
    )
    assert ended.stdout.endswith("I do not know.\n")
    assert ended.stderr == "session s: new\nsession s: new\n"


def test_the_recipe_deletes_old_sessions_of_all_users_whatever_their_ids(folder: Path) -> None:
    ended = bash(
        folder,
        rf"""
say() {{ ./hector call "$@" assistant "Hello" > /dev/null 2>&1; }}
say --session=new
say --session="it's \"old\"" --user=ada
say --session=$'of two\nlines' --user=ada
say --session=-dashed
say --session=nobody
sqlite3 ./data/sessions.db "UPDATE sessions SET updated_at = '2020-01-01 00:00:00.000' WHERE id <> 'new';"
# One on each page of the list.
{documented("session-persistence.md", "90 days ago").replace("--limit 1000", "--limit 1")}
sqlite3 ./data/sessions.db "SELECT id FROM sessions;"
""",
    )
    assert ended.stdout == "new\n", ended.stderr
    assert len(re.findall("^session .* is deleted$", ended.stderr, re.MULTILINE)) == 4


def test_the_backup_is_restored_after_a_kill(folder: Path) -> None:
    take, restore = documented("deployment.md", "# SQLite").split("\n# Restore")
    told = "My favorite color is blue"
    ended = bash(
        folder,
        rf"""
mkfifo lines
./hector serve --config config.yaml > lines &
grep -m1 '^ready' lines
say() {{
  curl -s -X POST http://localhost:8091/v1/agents/assistant/message:send -H "Content-Type: application/json" \
    -d '{{"message": {{"context_id": "'$1'", "role": 1, "content": [{{"text": "{told}"}}]}}}}'
}}
say before
{take}
for number in $(seq 20); do say after-$number; done
kill -9 %1
ls -s ./data/sessions.db-wal
echo ---
# Restore{restore}
sqlite3 ./data/sessions.db "PRAGMA integrity_check;"
sqlite3 ./data/sessions.db "SELECT id FROM sessions;"
./hector call --session=before assistant "What is my favorite color?"
""",
    )
    killed, restored = ended.stdout.split("---\n")
    assert re.search(r"\b[1-9]\d* \./data/sessions\.db-wal$", killed, re.MULTILINE), ended.stderr
    assert restored == f"ok\nbefore\nYou told me: {told}\n", ended.stderr
