"""With a real engine in a real process, and a model so small that it loads at once."""

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from hector.domain.errors import ContextTooLongError, GaveWayError, ModelRequestError, ModelUnavailableError
from hector.domain.events import TextDelta
from hector.domain.messages import Text, UserMessage
from hector.domain.models import ModelEvent, ModelReply, ModelRequest
from hector.domain.tools import ToolSpec
from hector.llm.embedded import DEFAULT_CONTEXT, MODEL_NAME, EmbeddedModel, embedded_model
from hector.llm.embedded_process import ModelProcess
from hector.llm.resolve import ModelChoice
from tests.fakes.tiny_model import write_tiny_model

HELLO = ModelRequest("", [UserMessage((Text("hello"),))])


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", context=100_000)


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which sockets' folders are made; short, since its path counts."""
    with tempfile.TemporaryDirectory(prefix="hector-test-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
async def model(file: Path) -> AsyncIterator[EmbeddedModel]:
    model = EmbeddedModel(file=file, context=1024, max_answer=20)
    yield model
    await model.close()


@pytest.fixture
async def endless(file: Path) -> AsyncIterator[EmbeddedModel]:
    """It would go on for minutes."""
    model = EmbeddedModel(file=file, context=100_000, max_answer=-1)
    yield model
    await model.close()


async def reply(model: EmbeddedModel, request: ModelRequest = HELLO) -> ModelReply:
    *_, last = [event async for event in model.respond(request)]
    assert isinstance(last, ModelReply)
    return last


async def first_delta(events: AsyncGenerator[ModelEvent, None]) -> TextDelta:
    event = await anext(events)
    assert isinstance(event, TextDelta)
    return event


def process_of(model: EmbeddedModel) -> ModelProcess:
    assert model._process is not None
    return model._process


def pid_of(model: EmbeddedModel) -> int:
    return process_of(model)._process.pid


def open_files(model: EmbeddedModel) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid_of(model)}/fd").iterdir()]


async def first_file(folder: Path) -> None:
    while not list(folder.iterdir()):  # noqa: ASYNC110 - there is no event for that
        await asyncio.sleep(0)


async def test_it_streams_what_it_then_replies(model: EmbeddedModel) -> None:
    events = [event async for event in model.respond(HELLO)]
    *deltas, last = events
    assert isinstance(last, ModelReply)
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert len(deltas) > 5
    assert len(text) == last.usage.output_tokens == 20
    assert last.message.text == text
    assert last.usage.input_tokens > len("hello")


async def test_in_one_piece_it_says_the_same(model: EmbeddedModel) -> None:
    whole = ModelRequest("", HELLO.messages, stream=False)
    [only] = [event async for event in model.respond(whole)]
    assert only == await reply(model)


YIELDING = replace(HELLO, stream=False, yields=True)


async def begun(model: EmbeddedModel) -> None:
    while not model._turnstile.locked():  # noqa: ASYNC110 - there is no event for that
        await asyncio.sleep(0)


async def test_a_request_that_yields_gives_way_to_one_that_does_not(endless: EmbeddedModel) -> None:
    yielding = asyncio.create_task(reply(endless, YIELDING))
    await begun(endless)
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
        with pytest.raises(GaveWayError):
            await yielding
        with pytest.raises(GaveWayError):
            await reply(endless, YIELDING)


async def test_an_answer_ends_where_it_may(model: EmbeddedModel) -> None:
    assert (await reply(model, replace(HELLO, longest=7))).usage.output_tokens == 7
    assert (await reply(model)).usage.output_tokens == 20


async def test_it_is_held_to_no_schema(model: EmbeddedModel) -> None:
    with pytest.raises(ModelRequestError, match="plain text"):
        await reply(model, replace(HELLO, output_schema={"type": "object"}))


async def test_requests_that_yield_are_answered_one_after_the_other(model: EmbeddedModel) -> None:
    first, second = await asyncio.gather(reply(model, YIELDING), reply(model, YIELDING))
    assert first == second == await reply(model, replace(HELLO, stream=False))


async def test_who_leaves_a_request_that_yields_stops_it(endless: EmbeddedModel) -> None:
    leaver = asyncio.create_task(reply(endless, YIELDING))
    await begun(endless)
    leaver.cancel()
    await asyncio.wait([leaver])
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)


async def test_nothing_runs_before_the_first_request(model: EmbeddedModel, sockets: Path) -> None:
    assert not list(sockets.iterdir())
    await reply(model)
    assert len(list(sockets.iterdir())) == 1


async def test_first_uses_at_once_share_one_process(model: EmbeddedModel, sockets: Path) -> None:
    await asyncio.gather(model.warm_up(), reply(model), reply(model), model.warm_up())
    assert len(list(sockets.iterdir())) == 1


async def test_the_loop_goes_on_while_it_loads(model: EmbeddedModel) -> None:
    warming = asyncio.create_task(model.warm_up())
    rounds = 0
    while not warming.done():
        await asyncio.sleep(0)
        rounds += 1
    assert rounds > 100


async def test_no_other_user_can_enter_the_sockets_folder(model: EmbeddedModel, sockets: Path) -> None:
    await reply(model)
    [folder] = sockets.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["model.sock"]


async def test_it_listens_on_its_socket_alone_and_asks_for_a_key(model: EmbeddedModel, sockets: Path) -> None:
    await reply(model)
    inodes = {name[len("socket:[") : -1] for name in open_files(model) if name.startswith("socket:[")}
    assert inodes
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid_of(model)}/net/{table}").read_text().splitlines()[1:]
        assert not inodes & {line.split()[9] for line in lines}, table
    [folder] = sockets.iterdir()
    reader, writer = await asyncio.open_unix_connection(folder / "model.sock")
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()
    await writer.wait_closed()


async def test_its_key_is_not_among_its_arguments(model: EmbeddedModel) -> None:
    await reply(model)
    arguments = Path(f"/proc/{pid_of(model)}/cmdline").read_bytes().split(b"\0")
    assert arguments[1:-1] == [
        b"-P",
        os.fsencode(Path(sys.modules["hector"].__path__[0]) / "llm/embedded_child.py"),
    ]


async def test_it_holds_no_file_of_its_parent(model: EmbeddedModel, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        await reply(model)
        held = open_files(model)
    assert str(tmp_path / "lock") not in held


async def test_requests_are_answered_in_their_order(model: EmbeddedModel) -> None:
    order: list[int] = []

    async def ask(number: int) -> None:
        await reply(model)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(ask(number))
    assert order == list(range(5))


async def test_a_closed_answer_makes_room_for_the_next(endless: EmbeddedModel) -> None:
    for _ in range(3):
        async with aclosing(endless.respond(HELLO)) as events:
            await first_delta(events)


async def test_a_cancelled_task_stops_the_generation(endless: EmbeddedModel) -> None:
    begun = asyncio.Event()

    async def ask() -> None:
        async for _ in endless.respond(HELLO):
            begun.set()

    task = asyncio.create_task(ask())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)


async def test_who_gives_up_waiting_leaves_the_queue(endless: EmbeddedModel) -> None:
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
        waiting = asyncio.create_task(reply(endless))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)


async def test_what_does_not_fit_is_refused_and_the_next_is_answered(model: EmbeddedModel) -> None:
    long = ModelRequest("", [UserMessage((Text("x" * 1025),))])
    with pytest.raises(ContextTooLongError):
        await reply(model, long)
    assert (await reply(model)).message.text


async def test_an_answer_ends_with_the_window(file: Path) -> None:
    model = EmbeddedModel(file=file, context=256, max_answer=-1)
    try:
        answer = await reply(model)
    finally:
        await model.close()
    assert answer.usage.input_tokens + answer.usage.output_tokens <= 256


async def test_after_its_process_died_the_next_request_starts_another(
    endless: EmbeddedModel, sockets: Path
) -> None:
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
        os.kill(pid_of(endless), signal.SIGKILL)
        with pytest.raises(ModelUnavailableError, match="the embedded model stopped"):
            async for _ in events:
                pass
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
    assert len(list(sockets.iterdir())) == 1, "the folder of the dead one is still there"


async def test_who_waits_does_not_share_the_fate_of_the_one_before(endless: EmbeddedModel) -> None:
    async def wait() -> None:
        async with aclosing(endless.respond(HELLO)) as events:
            await first_delta(events)

    async with aclosing(endless.respond(HELLO)) as events, asyncio.TaskGroup() as group:
        await first_delta(events)
        group.create_task(wait())
        group.create_task(wait())
        for _ in range(100):
            await first_delta(events)
        os.kill(pid_of(endless), signal.SIGKILL)
        with pytest.raises(ModelUnavailableError):
            async for _ in events:
                pass


async def test_a_process_that_died_unasked_is_replaced_unseen(model: EmbeddedModel) -> None:
    await reply(model)
    os.kill(pid_of(model), signal.SIGKILL)
    await process_of(model)._process.wait()
    assert (await reply(model)).message.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_to_the_group_are_its_parents_business(endless: EmbeddedModel, number: int) -> None:
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
        os.kill(pid_of(endless), number)
        for _ in range(1000):
            await first_delta(events)


async def test_closing_ends_it_and_removes_its_folder(model: EmbeddedModel, sockets: Path) -> None:
    await reply(model)
    process = process_of(model)
    await model.close()
    assert not process.alive
    assert not list(sockets.iterdir())
    await model.close()
    with pytest.raises(ModelUnavailableError, match="the embedded model was closed"):
        await reply(model)
    assert not list(sockets.iterdir())


async def test_closing_breaks_off_an_answer(endless: EmbeddedModel) -> None:
    async with aclosing(endless.respond(HELLO)) as events:
        await first_delta(events)
        await endless.close()
        with pytest.raises(ModelUnavailableError):
            async for _ in events:
                pass


async def test_closing_breaks_off_a_start(model: EmbeddedModel, sockets: Path) -> None:
    starting = asyncio.create_task(reply(model))
    await first_file(sockets)
    await model.close()
    with pytest.raises(ModelUnavailableError):
        await starting
    assert not list(sockets.iterdir())


async def test_a_cancelled_start_leaves_nothing_and_the_next_succeeds(
    model: EmbeddedModel, sockets: Path
) -> None:
    starting = asyncio.create_task(reply(model))
    await first_file(sockets)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await reply(model)).message.text
    assert len(list(sockets.iterdir())) == 1


async def test_a_parent_that_is_killed_takes_it_along(file: Path, sockets: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from hector.llm.embedded import EmbeddedModel\n"
        "async def main():\n"
        "    model = EmbeddedModel(file=Path(sys.argv[1]), context=1000)\n"
        "    await model.warm_up()\n"
        "    print(model._process._process.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(file),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(sockets), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout
    child = os.pidfd_open(int(await parent.stdout.readline()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(child, ended.set)
    try:
        assert not ended.is_set()
        parent.kill()
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(child)
        os.close(child)
        await parent.wait()
    assert not list(sockets.iterdir())


async def test_a_file_that_is_no_model_is_told_with_the_engines_words(tmp_path: Path, sockets: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    model = EmbeddedModel(file=tmp_path / "bad.gguf")
    await model.warm_up()
    for _ in range(2):
        with pytest.raises(
            ModelUnavailableError, match=r"the embedded model did not start: .*(invalid|[Ff]ailed|error)"
        ):
            await reply(model)
    assert not list(sockets.iterdir())
    await model.close()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = embedded_model(ModelChoice("local", model=str(tmp_path / "none.gguf")))
    with pytest.raises(ModelUnavailableError, match=r"there is no model file '.*/none\.gguf'"):
        await reply(model)


async def test_a_temporary_folder_that_is_gone_is_told(model: EmbeddedModel, sockets: Path) -> None:
    sockets.rmdir()
    with pytest.raises(
        ModelUnavailableError, match=r"no folder for its socket \(No such file or directory\)"
    ):
        await reply(model)
    sockets.mkdir()
    assert (await reply(model)).message.text


async def test_without_its_weights_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECTOR_CACHE", str(tmp_path))
    model = embedded_model(ModelChoice("local"))
    assert model.name == MODEL_NAME
    assert model.context_window == DEFAULT_CONTEXT
    with pytest.raises(ModelUnavailableError, match="fetch it with `hector models pull`"):
        await reply(model)


async def test_tools_are_not_offered_and_that_is_logged_once(
    model: EmbeddedModel, caplog: pytest.LogCaptureFixture
) -> None:
    tool = ToolSpec("clock", "Tells the time", {"type": "object", "properties": {}})
    asked = ModelRequest("", HELLO.messages, tools=(tool,))
    assert await reply(model, asked) == await reply(model, asked) == await reply(model)
    assert [record.message for record in caplog.records] == [
        "the embedded model is too small for tools and is offered none"
    ]


async def test_a_long_temporary_folder_is_not_used_for_the_socket(
    model: EmbeddedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert (await reply(model)).message.text
    assert not list(long.iterdir())
