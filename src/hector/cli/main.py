"""`hector`: the arguments of every command, and what becomes of errors.

Each command imports its module when it runs, so that nobody waits for what others need.
"""

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from hector.domain.errors import HectorError

if TYPE_CHECKING:
    from hector.cli.remote import Address

_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="Serve AI agents that are declared in YAML, and talk to them. No conversation is ever lost.",
    epilog="Exit status: 0; 1 if something failed; 2 if the command or the configuration is wrong;"
    " 130 after Ctrl-C.",
    context_settings=_HELP_OPTIONS,
    no_args_is_help=True,
    # Plain help: rich would take half of the time that help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(
        help=text, context_settings=_HELP_OPTIONS, no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(group, name=name)
    return group


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="HECTOR_CONFIG",
        help="The configuration; without it HECTOR_CONFIG, then config.yaml or hector.yaml in this folder.",
        show_envvar=False,
    ),
]
Agent = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name in the configuration.")]
AnyAgent = Annotated[
    str | None, typer.Option("--agent", "-a", metavar="AGENT", help="Not needed where there is only one.")
]
User = Annotated[
    str, typer.Option("--user", "-u", metavar="USER", help="Whose sessions; nobody's by default.")
]
Session = Annotated[
    str | None, typer.Option("--session", "-s", metavar="ID", help="Go on with this session, or begin it.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Talk to an agent of the Hector server there; with - as AGENT to the agent whose URL that is,"
        " on any server that speaks A2A.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="HECTOR_TOKEN",
        help="What that server knows you by; HECTOR_TOKEN by default.",
        show_envvar=False,
    ),
]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def serve(
    config: Config = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="Listen there; server.host by default.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            metavar="P",
            min=0,
            max=65534,
            help="gRPC listens on P, HTTP on P+1; server.port by default. 0 takes any free ports.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=256,
            help="Serve with so many processes, to use more than one core; server.workers by default.",
        ),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option("--log-level", help="logging.level by default."),
    ] = None,
) -> None:
    """Serve the agents over HTTP and gRPC until SIGTERM or Ctrl-C.

    Running turns may end first (server.drain_timeout); a second Ctrl-C ends at once. A line on standard
    output that begins with "ready" says that requests are taken; logs go to standard error.
    """
    from hector.cli.settings import Options, Source  # noqa: PLC0415

    source = Source.named(config, Options(host, port, workers, log_level))
    settings = source.settings()
    if settings.server.workers > 1:
        from hector.cli.workers.supervisor import serve_with_workers  # noqa: PLC0415

        _end(_run(serve_with_workers(source, settings)))
    import uvloop  # noqa: PLC0415

    from hector.cli.serve import serve_until_stopped  # noqa: PLC0415
    from hector.cli.serving import run_and_leave  # noqa: PLC0415

    run_and_leave(serve_until_stopped(settings), uvloop.new_event_loop)


@app.command()
def call(
    agent: Agent,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What to say; - reads standard input.")],
    config: Config = None,
    session: Session = None,
    user: User = "",
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="ID", help="Answer the question that this task waits with."),
    ] = None,
    server: Server = None,
    token: Token = None,
    *,
    stream: Annotated[
        bool,
        typer.Option("--stream/--no-stream", help="Print the answer as it is written, or when it is whole."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Send one message to an agent and print its answer.

    It needs no server, and may be used beside one: both keep sessions in the store that the configuration
    names. With --server the agent is one of that server, and no configuration is read. Nothing but the answer
    goes to standard output. Ctrl-C stops the turn.
    """
    from hector.cli.call import call, call_server, message_of  # noqa: PLC0415
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415
    from hector.cli.exchange import Request  # noqa: PLC0415

    if server is not None:
        there = _address(server, agent, token, user)
        asked = Request(agent, "", message_of(message), _checked_session(session), task, stream=stream)
        _warn_only()
        _end(_run(call_server(there, asked, as_json=as_json)))

    settings = load_config(config)
    request = Request(
        choose_agent(settings, agent, "AGENT"),
        _checked_user(user),
        message_of(message),
        _checked_session(session),
        task,
        stream=stream and not as_json,
    )
    _warn_only()
    _end(_run(call(settings, request, as_json=as_json)))


@app.command()
def chat(
    agent: Agent,
    config: Config = None,
    session: Session = None,
    user: User = "",
    server: Server = None,
    token: Token = None,
) -> None:
    """Talk to an agent, line by line.

    Ctrl-C stops an answer, and at the prompt clears the line; `exit`, `quit`, Ctrl-D or Ctrl-C twice end
    the chat. Lines may be piped in. Like `call`, it needs no server, and talks to one with --server.
    """
    from hector.cli.chat import chat, chat_with  # noqa: PLC0415
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415

    if server is not None:
        there = _address(server, agent, token, user)
        _warn_only()
        _end(_run(chat_with(there, session_id=_checked_session(session))))

    settings = load_config(config)
    _warn_only()
    agent = choose_agent(settings, agent, "AGENT")
    _end(_run(chat(settings, agent, user=_checked_user(user), session_id=_checked_session(session))))


sessions = _group("sessions", "Look at sessions, and delete them.")


@sessions.command("list")
def list_sessions(
    config: Config = None,
    agent: AnyAgent = None,
    user: User = "",
    *,
    all_users: Annotated[bool, typer.Option("--all-users", help="Those of all users.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1000, help="How many at most.")
    ] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where an earlier list ended.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List an agent's sessions, the last used first."""
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415
    from hector.cli.sessions import list_sessions  # noqa: PLC0415

    if all_users and user:
        raise typer.BadParameter("say --user or --all-users, not both")
    settings = load_config(config)
    _warn_only()
    work = list_sessions(
        settings,
        choose_agent(settings, agent),
        user=None if all_users else _checked_user(user),
        limit=limit,
        cursor=cursor,
        as_json=as_json,
    )
    _end(_run(work))


@sessions.command("show")
def show_session(
    session: SessionId,
    config: Config = None,
    agent: AnyAgent = None,
    user: User = "",
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1000, help="How many messages.")
    ] = 50,
    before: Annotated[
        int | None, typer.Option("--before", metavar="SEQ", min=1, help="Those before this one.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Print a session's newest messages, oldest first."""
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415
    from hector.cli.sessions import show_session  # noqa: PLC0415
    from hector.domain.ids import SessionKey  # noqa: PLC0415

    settings = load_config(config)
    _warn_only()
    key = SessionKey(choose_agent(settings, agent), _checked_user(user), session)
    _end(_run(show_session(settings, key, limit=limit, before=before, as_json=as_json)))


@sessions.command("context")
def show_context(
    session: SessionId,
    config: Config = None,
    agent: AnyAgent = None,
    user: User = "",
    *,
    as_json: Json = False,
) -> None:
    """Print what the model would be sent next: instructions, summary, messages, and the tokens of each."""
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415
    from hector.cli.context import show_context  # noqa: PLC0415
    from hector.domain.ids import SessionKey  # noqa: PLC0415

    settings = load_config(config)
    _warn_only()
    key = SessionKey(choose_agent(settings, agent), _checked_user(user), session)
    _end(_run(show_context(settings, key, as_json=as_json)))


@sessions.command("delete")
def delete_session(
    session: SessionId,
    config: Config = None,
    agent: AnyAgent = None,
    user: User = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a session and all that belongs to it. A turn that runs in it is stopped."""
    from hector.cli.config_file import choose_agent, load_config  # noqa: PLC0415
    from hector.cli.sessions import delete_session  # noqa: PLC0415
    from hector.domain.ids import SessionKey  # noqa: PLC0415

    settings = load_config(config)
    _warn_only()
    key = SessionKey(choose_agent(settings, agent), _checked_user(user), session)
    _end(_run(delete_session(settings, key, confirm=not yes)))


config_group = _group("config", "Work with configurations.")


@config_group.command("check")
def check_config(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Which one; without it, as for other commands.",
            envvar="HECTOR_CONFIG",
            show_envvar=False,
        ),
    ] = None,
    *,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Try every session store that it names, too; nothing is created or changed in a database.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell all that is wrong with a configuration; start nothing."""
    from hector.cli.check import check_config  # noqa: PLC0415

    if connect:
        _warn_only()
    _end(_run(check_config(file, connect=connect, as_json=as_json)))


Store = Annotated[
    str | None,
    typer.Option("--store", metavar="NAME", help="Which session store; not needed where there is only one."),
]

db = _group("db", "Prepare the databases of session stores.")


@db.command("grants")
def show_grants(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Who shall serve; on MySQL NAME or NAME@HOST.")],
    config: Config = None,
    store: Store = None,
    *,
    as_json: Json = False,
) -> None:
    """Print the SQL that lets a role serve.

    It gives all that the role needs once the tables are there, and no more. Whoever owns the tables runs it,
    or an administrator; this command changes nothing.
    """
    from hector.cli.config_file import load_config  # noqa: PLC0415
    from hector.cli.db import show_grants  # noqa: PLC0415

    settings = load_config(config)
    _warn_only()
    _end(_run(show_grants(settings, role, store=store, as_json=as_json)))


@db.command("migrate")
def migrate_stores(
    config: Config = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="NAME", help="Only this session store; all of them by default."),
    ] = None,
) -> None:
    """Create or migrate the tables of stores.

    A start does the same, unless auto_migrate is off or its user may not.
    """
    from hector.cli.config_file import load_config  # noqa: PLC0415
    from hector.cli.db import migrate_stores  # noqa: PLC0415

    settings = load_config(config)
    _warn_only()
    _end(_run(migrate_stores(settings, store=store)))


models = _group("models", "The model that needs no key.")


@models.command("pull")
def pull_models(
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="PATH|URL",
            help="A file, a folder or a mirror that has it; HECTOR_MODEL_SOURCE by default.",
        ),
    ] = None,
) -> None:
    """Fetch the embedded model, about 500 MB, unless it is there."""
    from hector.cli.models import pull_models  # noqa: PLC0415

    _end(pull_models(source))


@app.command()
def version(*, as_json: Json = False) -> None:
    """Print the version."""
    from hector.cli.version import show_version  # noqa: PLC0415

    _end(show_version(as_json=as_json))


def main() -> NoReturn:
    # Texts are in any script, and there are terminals that know one alone.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        try:
            app(prog_name="hector")
        finally:
            sys.stdout.flush()
    except HectorError as error:
        sys.exit(_tell(error))
    except BrokenPipeError:
        from hector.cli.output import close_output  # noqa: PLC0415

        close_output()
        sys.exit(1)
    raise AssertionError("typer ends by SystemExit")


def _tell(error: HectorError) -> int:
    """The exit status."""
    from hector.cli.failures import explained  # noqa: PLC0415
    from hector.cli.output import note  # noqa: PLC0415

    status, lines = explained(error)
    for line in lines:
        note(line)
    return status


def _run(work: Coroutine[Any, Any, int]) -> int:
    import asyncio  # noqa: PLC0415

    return asyncio.run(work)


def _end(status: int) -> NoReturn:
    raise typer.Exit(status)


def _address(server: str, agent: str, token: str | None, user: str) -> "Address":
    """What to talk to with --server, which knows its callers by their tokens."""
    from hector.cli.remote import Address  # noqa: PLC0415

    if user:
        raise typer.BadParameter("say --user or --server, not both; a server knows its users by --token")
    return Address(server, None if agent == "-" else agent, token)


def _warn_only() -> None:
    from hector.cli.logs import warn_only  # noqa: PLC0415

    warn_only()


def _checked_user(user: str) -> str:
    from hector.domain.ids import check_user_id  # noqa: PLC0415

    return check_user_id(user, "--user")


def _checked_session(session: str | None) -> str | None:
    from hector.domain.ids import check_session_id  # noqa: PLC0415

    return None if session is None else check_session_id(session, "--session")
