"""`make demo`: tell an agent something, kill its server, start it again, and ask; 0 only if it remembers."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).resolve().parents[1]
HECTOR = str(Path(sys.executable).with_name("hector"))
FOLDER = Path("demo")
CONFIG = FOLDER / "config.yaml"
LOG = FOLDER / "server.log"
CONFIG_TEXT = """\
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./demo/sessions.db

agents:
  assistant:
    llm: "local"               # the embedded model, which needs no key
    session_store: "main-db"
    memory:
      working:
        strategy: "summary_buffer"
        budget: 2000
"""
STATEMENT = "Remember: my project ID is ALPHA-789"
QUESTION = "What is my project ID?"
SECRET = "ALPHA-789"
START_TIMEOUT = 60
REPLY_TIMEOUT = 300
"""Seconds; the first reply waits for the model to be loaded."""

console = Console(highlight=False, soft_wrap=True)
# The server is on this machine, whatever proxy the user has.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoError(Exception):
    """It cannot go on; the text says why and what would help."""


class Server:
    """One `hector serve`, on ports that were free."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self.url = ""
        with LOG.open("ab") as log:
            self.process = subprocess.Popen(
                [HECTOR, "serve", "--config", str(CONFIG), "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_until_ready(self) -> None:
        if not self._ready.wait(START_TIMEOUT):
            raise DemoError(f"the server was not ready after {START_TIMEOUT} seconds{_end_of_log()}")
        if not self.url:
            raise DemoError(f"the server did not start (exit status {self.process.wait()}){_end_of_log()}")

    def kill(self) -> None:
        """SIGKILL: it learns nothing of it."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        """Read to the end, for a full pipe would stop the server; the first URL after the word is HTTP's."""
        assert self.process.stdout
        announced = False
        for line in self.process.stdout:
            announced = announced or "ready" in line.lower()
            found = re.search(r"http://[^\s/]+:\d+", line)
            if announced and found and not self.url:
                self.url = found.group()
                self._ready.set()
        self._ready.set()


def main() -> int:
    os.chdir(ROOT)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character shows another.
        sys.stdout.reconfigure(errors="replace")
    try:
        return run()
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130


def run() -> int:
    if not Path(HECTOR).exists():
        raise DemoError(f"{HECTOR} is not there; run `make demo`, which installs it")
    FOLDER.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)

    step("The embedded model, about 500 MB the first time")
    if subprocess.run([HECTOR, "models", "pull"], check=False).returncode != 0:
        raise DemoError("without a model there is nobody to talk to; the line above says what would help")

    step(f"A configuration in {CONFIG}")
    write_config()

    session = f"demo-{uuid.uuid4().hex[:8]}"
    step(f"hector serve, and a message in the new session {session}")
    with started() as server:
        ask(server, session, STATEMENT)
        step("kill -9")
        server.kill()
        tell(f"process {server.process.pid} is gone, without a chance to save anything")

    step("hector serve again, and a question in the same session")
    with started() as server:
        answer = ask(server, session, QUESTION)

    if SECRET not in answer:
        console.print(
            f"\n[bold red]The answer does not hold {SECRET}.[/] The conversation was kept (see it with:"
        )
        console.print(f"  {command('sessions show', session)} ),")
        console.print("but the model did not make use of it. Run the demo again, or try a larger model.")
        return 1
    console.print(f"\n[bold green]It remembers {SECRET}, though its server was killed.[/]")
    what_next(session)
    return 0


def write_config() -> None:
    if CONFIG.exists() and CONFIG.read_text() != CONFIG_TEXT:
        tell("yours, as it is; remove it and the demo writes its own again")
    else:
        CONFIG.write_text(CONFIG_TEXT)
        console.print(CONFIG_TEXT, style="dim", markup=False, end="")


@contextmanager
def started() -> Iterator[Server]:
    """A server that is ready; killed at the end, if it is still there."""
    server = Server()
    try:
        with waiting("starting"):
            server.wait_until_ready()
        tell(f"process {server.process.pid} serves {server.url}")
        yield server
    finally:
        server.kill()


def ask(server: Server, session: str, text: str) -> str:
    console.print(f"  [bold cyan]      you[/]  {escape(text)}")
    # As in the documentation's curl commands; the message id would make a repeat harmless.
    body = {"message": {"context_id": session, "role": 1, "content": [{"text": text}]}}
    request = urllib.request.Request(
        f"{server.url}/v1/agents/assistant/message:send",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with waiting("thinking"), http.open(request, timeout=REPLY_TIMEOUT) as response:
            answer = reply_in(json.load(response))
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise DemoError(f"the server answered {error.code}: {text}{_end_of_log()}") from error
    except (OSError, ValueError) as error:
        raise DemoError(f"the server did not answer: {error}{_end_of_log()}") from error
    console.print(f"  [bold magenta]assistant[/]  {escape(answer)}")
    return answer


def reply_in(body: Mapping[str, Any]) -> str:
    """The text of the reply; A2A's versions name some fields differently."""
    task = body.get("task", body)
    status = task.get("status", {})
    if not str(status.get("state", "")).lower().endswith("completed"):
        message = status.get("message") or status.get("update") or {}
        raise DemoError(
            f"the turn is {status.get('state')}: {text_of(message) or 'no reason given'}{_end_of_log()}"
        )
    texts = [text_of(artifact) for artifact in task.get("artifacts", []) if artifact.get("name") == "reply"]
    if not texts:
        raise DemoError("the server's answer holds no reply")
    return "".join(texts)


def text_of(holder: Mapping[str, Any]) -> str:
    return "".join(part.get("text", "") for part in holder.get("parts") or holder.get("content") or [])


def what_next(session: str) -> None:
    console.print("\nWhat to type next:\n")
    for why, line in (
        ("go on with this conversation", command("chat", f"--session={session}", "assistant")),
        ("look at what is stored", command("sessions show", session)),
        ("serve it, for curl or any A2A client", command("serve")),
    ):
        console.print(f"  [dim]# {why}[/]\n  {line}\n")
    console.print(
        "The embedded model is small and makes mistakes. For a better one, set OPENAI_API_KEY and write"
        f'\nllm: "gpt-4o" in {CONFIG}; docs/configuration.md has all that can be said there.'
    )


def command(name: str, *rest: str) -> str:
    return " ".join((os.path.relpath(HECTOR, ROOT), name, "--config", str(CONFIG), *rest))


def step(text: str) -> None:
    console.print(f"\n[bold]▸ {escape(text)}[/]")


def tell(text: str) -> None:
    console.print(f"  [dim]{escape(text)}[/]")


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Something that moves while nothing else does; nothing at all where nobody watches."""
    if console.is_terminal:
        with console.status(f"[dim]{text}[/]"):
            yield
    else:
        yield


def _end_of_log() -> str:
    with suppress(OSError):
        lines = LOG.read_text(errors="replace").strip().splitlines()[-10:]
        if lines:
            return f"; the end of {LOG}:\n" + "\n".join(f"  {line}" for line in lines)
    return ""


if __name__ == "__main__":
    sys.exit(main())
