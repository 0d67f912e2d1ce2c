"""A2A over gRPC: both services over a real port, errors, streams that nobody reads, starts and stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as old
from a2a.compat.v0_3.a2a_v0_3_pb2_grpc import A2AServiceStub as OldStub
from a2a.types import a2a_pb2 as new
from a2a.types.a2a_pb2_grpc import A2AServiceStub as NewStub
from google.rpc import error_details_pb2, status_pb2

from hector.config import AuthSection, LimitsSection, ServerSection
from hector.domain.errors import ConfigError
from hector.domain.profiles import Extension, Profile, Skill
from hector.domain.turns import TurnSettings
from hector.llm.scripted import ScriptedModel
from hector.runtime.patience import Patience
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from hector.runtime.runtime import Runtime
from hector.server.a2a.card import Cards
from hector.server.a2a.operations import Operations
from hector.server.a2a.wire import Json
from hector.server.entrance import Entrance
from hector.server.grpc.listener import GrpcListener
from tests.server.site import AGENTS, ALICE, open_scripted, tokens

AGENT = (("agent-name", "a"),)


@dataclass
class Site:
    runtime: Runtime
    model: ScriptedModel
    entrance: Entrance
    listener: GrpcListener
    address: str
    channel: grpc.aio.Channel

    @property
    def new(self) -> Any:
        return NewStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def old(self) -> Any:
        return OldStub(self.channel)  # type: ignore[no-untyped-call]


StartSite: TypeAlias = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncIterator[StartSite]:
    async with AsyncExitStack() as stack:

        async def start(
            *,
            auth: AuthSection | None = None,
            settings: TurnSettings | None = None,
            agents: dict[str, tuple[str, str]] = AGENTS,
            stalled: float = 30.0,
            body_limit: int = 1_000_000,
            default_agent: str | None = None,
            profile: Profile | None = None,
            push: PushSettings | None = None,
        ) -> Site:
            runtime, model = await open_scripted(
                settings=settings, names=agents, profile=profile or Profile(), push=push
            )
            stack.push_async_callback(runtime.close)
            section = ServerSection(auth=auth or AuthSection(), limits=LimitsSection(body=body_limit))
            entrance = Entrance(section, Patience(), loopback=True, hold=0.0)
            cards = Cards(runtime, None, signs_in=entrance.tokens.required, pushes=lambda _: False)
            entrance.open(Operations(runtime, cards, default_agent=default_agent))
            listener = GrpcListener(entrance, body_limit=body_limit, stalled=stalled)
            port = await listener.start("127.0.0.1", 0)
            stack.push_async_callback(listener.stop, 0.0)
            address = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return Site(runtime, model, entrance, listener, address, channel)

        yield start


@pytest.fixture
async def site(start: StartSite) -> Site:
    return await start()


def said(text: str, *, message_id: str = "m", tenant: str = "a", **more: Any) -> Any:
    """In 1.0's words."""
    message = new.Message(
        message_id=message_id, context_id="s", role=new.ROLE_USER, parts=[new.Part(text=text)], **more
    )
    return new.SendMessageRequest(message=message, tenant=tenant)


def said_before(text: str, *, message_id: str = "m") -> Any:
    """In 0.3's words."""
    message = old.Message(
        message_id=message_id, context_id="s", role=old.ROLE_USER, content=[old.Part(text=text)]
    )
    return old.SendMessageRequest(request=message)


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, status_pb2.Status]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    rich = status_pb2.Status()
    trailing: Any = raised.value.trailing_metadata()
    rich.ParseFromString(dict(trailing)["grpc-status-details-bin"])
    assert rich.message == raised.value.details()
    return raised.value.code(), rich


async def test_what_is_no_message_is_refused_and_says_why(site: Site) -> None:
    send: Any = site.channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")
    code, status = await refusal(send(b"\xff\xff"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "wanted a lf.a2a.v1.SendMessageRequest" in status.message
    listed = new.ListTasksRequest(tenant="a", status_timestamp_after={"nanos": -1})
    code, status = await refusal(site.new.ListTasks(listed))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "nanos" in status.message.lower()


async def rest(stream: Any) -> list[Any]:
    """Of a stream of which something was read."""
    found = []
    while (event := await stream.read()) is not grpc.aio.EOF:
        found.append(event)
    return found


def about(rich: status_pb2.Status) -> Any:
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    return info


async def test_a_message_of_1_0(site: Site) -> None:
    task = (await site.new.SendMessage(said("say hi"))).task
    assert (task.context_id, task.status.state) == ("s", new.TASK_STATE_COMPLETED)
    assert task.artifacts[0].parts[0].text == "hi"
    assert (await site.new.GetTask(new.GetTaskRequest(id=task.id, tenant="a"))).artifacts == task.artifacts


async def test_a_message_of_0_3(site: Site) -> None:
    task = (await site.old.SendMessage(said_before("say hi"), metadata=AGENT)).task
    assert (task.context_id, task.status.state) == ("s", old.TASK_STATE_COMPLETED)
    assert task.artifacts[0].parts[0].text == "hi"
    named = old.GetTaskRequest(name=f"tasks/{task.id}", history_length=2)
    found = await site.old.GetTask(named, metadata=AGENT)
    assert [message.role for message in found.history] == [old.ROLE_USER, old.ROLE_AGENT]


async def test_both_services_see_one_task(site: Site) -> None:
    first = (await site.new.SendMessage(said("say hi"))).task
    assert (await site.old.SendMessage(said_before("say hi"), metadata=AGENT)).task.id == first.id


async def test_streams_of_both(site: Site) -> None:
    found = [event async for event in site.new.SendStreamingMessage(said("stream 2 hello"))]
    kinds = [event.WhichOneof("payload") for event in found]
    assert kinds == ["task", *["artifact_update"] * 3, "status_update"]
    assert found[-1].status_update.status.state == new.TASK_STATE_COMPLETED
    before = said_before("stream 2 hello", message_id="n")
    told = [event async for event in site.old.SendStreamingMessage(before, metadata=AGENT)]
    assert [event.WhichOneof("payload") for event in told] == kinds
    assert told[-1].status_update.final


async def test_a_running_task_is_subscribed_to_and_canceled(site: Site) -> None:
    gate = site.model.gate("g")
    streaming = site.new.SendStreamingMessage(said("stream 2 ab\nwait g"))
    task = (await streaming.read()).task
    await gate.reached.wait()
    subscribed = site.old.TaskSubscription(
        old.TaskSubscriptionRequest(name=f"tasks/{task.id}"), metadata=AGENT
    )
    assert (await subscribed.read()).task.id == task.id
    canceled = await site.new.CancelTask(new.CancelTaskRequest(id=task.id, tenant="a"))
    assert canceled.status.state == new.TASK_STATE_CANCELED
    told = await rest(subscribed)
    assert told[-1].status_update.status.state == old.TASK_STATE_CANCELLED
    code, rich = await refusal(
        site.new.SubscribeToTask(new.SubscribeToTaskRequest(id=task.id, tenant="a")).read()
    )
    assert (code, about(rich).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_OPERATION")


async def test_who_is_meant(start: StartSite) -> None:
    site = await start()
    assert await site.new.SendMessage(said("say hi", tenant=""), metadata=(("agent-name", "b"),))
    code, rich = await refusal(site.new.SendMessage(said("say hi", tenant="")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "(known: a, b)" in rich.message
    code, rich = await refusal(site.new.SendMessage(said("say hi", tenant="none")))
    assert code == grpc.StatusCode.NOT_FOUND
    alone = await start(agents={"only": ("", "")})
    assert await alone.new.SendMessage(said("say hi", tenant=""))
    chosen = await start(default_agent="b")
    task = (await chosen.new.SendMessage(said("say hi", tenant=""))).task
    assert await chosen.new.GetTask(new.GetTaskRequest(id=task.id, tenant="b"))
    assert (await chosen.old.SendMessage(said_before("say hi"))).task.id == task.id


async def test_who_signed_in_is_shown_the_extended_card(start: StartSite) -> None:
    profile = Profile(extended_skills=(Skill("secret", "Secret", "for friends"),))
    site = await start(auth=tokens(), profile=profile)
    site.entrance.url = "http://localhost:8091"
    signed_in = (("authorization", f"Bearer {ALICE}"), *AGENT)
    card = await site.new.GetExtendedAgentCard(new.GetExtendedAgentCardRequest(), metadata=signed_in)
    before = await site.old.GetAgentCard(old.GetAgentCardRequest(), metadata=signed_in)
    assert [skill.id for skill in card.skills] == [skill.id for skill in before.skills] == ["chat", "secret"]
    assert card.supported_interfaces[0].url == before.url == "http://localhost:8091/v1/agents/a"
    assert list(before.security[0].schemes) == list(card.security_requirements[0].schemes) == ["bearer"]
    code, _ = await refusal(site.new.GetExtendedAgentCard(new.GetExtendedAgentCardRequest(tenant="a")))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    anybody = await start()
    code, rich = await refusal(anybody.new.GetExtendedAgentCard(new.GetExtendedAgentCardRequest(tenant="a")))
    assert (code, about(rich).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_OPERATION")


async def test_extensions_are_agreed_on(start: StartSite) -> None:
    site = await start(
        profile=Profile(extensions=(Extension("urn:must", required=True), Extension("urn:may")))
    )
    asked = (("a2a-extensions", "urn:other,urn:may"), ("a2a-extensions", "urn:must"))
    call = site.new.SendMessage(said("say hi"), metadata=asked)
    assert dict(await call.initial_metadata())["a2a-extensions"] == "urn:must, urn:may"
    assert (await call).task.status.state == new.TASK_STATE_COMPLETED
    stream = site.new.SendStreamingMessage(said("say hi"), metadata=asked)
    assert dict(await stream.initial_metadata())["a2a-extensions"] == "urn:must, urn:may"
    assert await rest(stream)
    code, rich = await refusal(site.new.SendMessage(said("say hi")))
    assert (code, about(rich).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXTENSION_SUPPORT_REQUIRED")
    assert (await site.old.SendMessage(said_before("say hi"), metadata=AGENT)).task.id
    before = site.old.SendMessage(said_before("say hi"), metadata=(*AGENT, ("x-a2a-extensions", "urn:may")))
    assert dict(await before.initial_metadata()) == {"x-a2a-extensions": "urn:may"}, "0.3's name of it"


async def test_errors_have_their_details(site: Site) -> None:
    code, rich = await refusal(site.new.GetTask(new.GetTaskRequest(id="none", tenant="a")))
    assert code == grpc.StatusCode.NOT_FOUND
    assert (about(rich).reason, about(rich).domain) == ("TASK_NOT_FOUND", "a2a-protocol.org")
    assert dict(about(rich).metadata) == {"taskId": "none"}
    code, rich = await refusal(site.new.SendMessage(said("say hi", message_id="")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    wrong = error_details_pb2.BadRequest()
    assert rich.details[1].Unpack(wrong)
    assert wrong.field_violations[0].field == "message.messageId"
    for name in ("x", "tasks/", "tasks/a/b"):
        code, _ = await refusal(site.old.GetTask(old.GetTaskRequest(name=name), metadata=AGENT))
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_no_request_is_its_senders_fault(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = said("x")
    nowhere.message.metadata.update({"a": {"b": [1.0, float("nan")]}})
    of_part = said("x")
    of_part.message.parts.add().data.number_value = float("inf")
    later = new.ListTasksRequest(tenant="a")
    later.status_timestamp_after.seconds = 10**15
    for method, body, field in (
        ("SendMessage", b"\xff", "request"),
        ("SendMessage", b'\x0a\x03a\xff"', "request"),
        ("SendMessage", nowhere.SerializeToString(), "message.metadata"),
        ("SendMessage", of_part.SerializeToString(), "message.parts[1].data"),
        ("ListTasks", later.SerializeToString(), "statusTimestampAfter"),
    ):
        call: Any = site.channel.unary_unary(f"/lf.a2a.v1.A2AService/{method}")
        code, rich = await refusal(call(body, metadata=AGENT))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        wrong = error_details_pb2.BadRequest()
        assert rich.details[1].Unpack(wrong)
        assert wrong.field_violations[0].field == field
    streaming: Any = site.channel.unary_stream("/a2a.v1.A2AService/SendStreamingMessage")
    code, _ = await refusal(streaming(b"\xff", metadata=AGENT).read())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records


@pytest.mark.parametrize("version", ["0.3", "9.9", "x"])
async def test_a_version_that_is_not_the_services_is_refused(site: Site, version: str) -> None:
    metadata = (("a2a-version", version),)
    code, rich = await refusal(site.new.SendMessage(said("say hi"), metadata=metadata))
    assert (code, about(rich).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED")
    assert await site.new.SendMessage(said("say hi"), metadata=(("a2a-version", "1.0"),))


async def test_a_busy_session_is_aborted_with_the_task_that_runs(start: StartSite) -> None:
    site = await start(settings=TurnSettings(on_busy="reject"))
    gate = site.model.gate("g")
    running = site.new.SendMessage(said("wait g"))
    sending = asyncio.ensure_future(_answer(running))
    await gate.reached.wait()
    code, rich = await refusal(site.new.SendMessage(said("say hi", message_id="n")))
    gate.opened.set()
    task = (await sending).task
    assert (code, dict(about(rich).metadata)) == (grpc.StatusCode.ABORTED, {"taskId": task.id})


async def _answer(call: Any) -> Any:
    return await call


async def test_who_calls_is_asked(start: StartSite) -> None:
    site = await start(auth=tokens())
    code, _ = await refusal(site.new.SendMessage(said("say hi")))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    metadata = (("authorization", f"Bearer {ALICE}"),)
    task = (await site.new.SendMessage(said("say hi"), metadata=metadata)).task
    assert (await site.runtime.turn("a", "alice", task.id)).key.user_id == "alice"


async def test_while_it_stops_or_starts_callers_are_told_to_try_again(start: StartSite) -> None:
    site = await start()
    site.entrance._operations = None
    code, rich = await refusal(site.new.SendMessage(said("say hi")))
    assert code == grpc.StatusCode.UNAVAILABLE
    again = error_details_pb2.RetryInfo()
    assert rich.details[1].Unpack(again)
    assert again.retry_delay.seconds == 1
    site.entrance.stop()
    code, rich = await refusal(site.new.SendMessage(said("say hi")))
    assert (code, "is stopping" in rich.message) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_a_message_beyond_the_limit_is_refused(start: StartSite) -> None:
    site = await start(body_limit=2000)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await site.new.SendMessage(said("x" * 3000))
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_leaves_does_not_stop_the_turn(site: Site) -> None:
    gate = site.model.gate("g")
    streaming = site.new.SendStreamingMessage(said("wait g\nsay hi"))
    task = (await streaming.read()).task
    await gate.reached.wait()
    streaming.cancel()
    gate.opened.set()
    listening = await site.runtime.listen("a", "", task.id)
    assert (await listening.result()).reply == "hi"


async def test_a_client_that_does_not_read_is_dropped(
    start: StartSite, caplog: pytest.LogCaptureFixture
) -> None:
    site = await start(stalled=0.2, body_limit=10_000_000)
    caplog.set_level("INFO")
    text = "x" * 4_000_000
    # It takes no more at a time than it is asked for.
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
    async with grpc.aio.insecure_channel(site.address, options=options) as channel:
        agent = NewStub(channel)  # type: ignore[no-untyped-call]
        streaming = agent.SendStreamingMessage(said(f"stream 400 {text}"))
        await streaming.read()
        while "stopped reading its stream" not in caplog.text:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    (session,) = (await site.runtime.sessions("a", user_id="")).sessions
    assert session.messages == 2


async def test_a_defect_says_nothing_of_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "secret"

    async def broken(*args: Any, **more: Any) -> None:
        raise ValueError(words)

    monkeypatch.setattr(site.runtime, "send", broken)
    code, rich = await refusal(site.new.SendMessage(said("say hi")))
    assert (code, rich.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "failed with a defect" in caplog.text
    assert words not in caplog.text


async def test_half_a_character_of_a_provider_is_replaced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(*args: Any, **more: Any) -> Json:
        return {"task": {"id": "t", "metadata": {"said": ["a\ud83d"]}}}

    monkeypatch.setattr(Operations, "send", half)
    task = (await site.new.SendMessage(said("say hi"))).task
    assert task.metadata["said"][0] == "a\ufffd"


async def test_a_port_that_is_taken_is_told(site: Site) -> None:
    port = int(site.address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
        await GrpcListener(site.entrance, body_limit=1).start("127.0.0.1", port)


# --- push notifications


async def nowhere(host: str, port: int) -> list[str]:
    raise OSError("no such name")


PUSH = PushSettings(Targets(resolve=nowhere))


async def test_push_configurations_of_1_0(start: StartSite) -> None:
    site = await start(push=PUSH)
    task = (await site.new.SendMessage(said("say hi"))).task
    config = new.TaskPushNotificationConfig(
        tenant="a",
        task_id=task.id,
        id="c",
        url="https://example.com/",
        token="tok",
        authentication=new.AuthenticationInfo(scheme="Bearer", credentials="secret"),
    )
    made = await site.new.CreateTaskPushNotificationConfig(config)
    config.tenant = ""
    assert made == config
    named = {"tenant": "a", "task_id": task.id, "id": "c"}
    assert (
        await site.new.GetTaskPushNotificationConfig(new.GetTaskPushNotificationConfigRequest(**named))
        == made
    )
    every = new.ListTaskPushNotificationConfigsRequest(tenant="a", task_id=task.id)
    assert list((await site.new.ListTaskPushNotificationConfigs(every)).configs) == [made]
    for _ in range(2):
        await site.new.DeleteTaskPushNotificationConfig(new.DeleteTaskPushNotificationConfigRequest(**named))
    code, rich = await refusal(
        site.new.GetTaskPushNotificationConfig(new.GetTaskPushNotificationConfigRequest(**named))
    )
    assert code is grpc.StatusCode.NOT_FOUND
    assert "push notification configuration" in rich.message


async def test_push_configurations_of_0_3(start: StartSite) -> None:
    site = await start(push=PUSH)
    task = (await site.old.SendMessage(said_before("say hi"), metadata=AGENT)).task
    push = old.PushNotificationConfig(
        id="c", url="https://example.com/", authentication=old.AuthenticationInfo(schemes=["Bearer", "Basic"])
    )
    name = f"tasks/{task.id}/pushNotificationConfigs/c"
    request = old.CreateTaskPushNotificationConfigRequest(
        parent=f"tasks/{task.id}",
        config_id="c",
        config=old.TaskPushNotificationConfig(name=name, push_notification_config=push),
    )
    made = await site.old.CreateTaskPushNotificationConfig(request, metadata=AGENT)
    assert made == request.config
    get = old.GetTaskPushNotificationConfigRequest(name=name)
    assert await site.old.GetTaskPushNotificationConfig(get, metadata=AGENT) == made
    every = old.ListTaskPushNotificationConfigRequest(parent=f"tasks/{task.id}")
    listed = await site.old.ListTaskPushNotificationConfig(every, metadata=AGENT)
    assert list(listed.configs) == [made]
    gone = old.DeleteTaskPushNotificationConfigRequest(name=name)
    for _ in range(2):
        await site.old.DeleteTaskPushNotificationConfig(gone, metadata=AGENT)
    code, _ = await refusal(site.old.GetTaskPushNotificationConfig(get, metadata=AGENT))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", ["x", "tasks/", "tasks/t/pushNotificationConfigs/", "tasks/t/other/c"])
async def test_what_names_no_push_configuration_is_refused(start: StartSite, name: str) -> None:
    site = await start(push=PUSH)
    get = old.GetTaskPushNotificationConfigRequest(name=name)
    code, _ = await refusal(site.old.GetTaskPushNotificationConfig(get, metadata=AGENT))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_webhooks_that_is_the_status(site: Site) -> None:
    config = new.TaskPushNotificationConfig(tenant="a", task_id="t", url="https://example.com/")
    code, _ = await refusal(site.new.CreateTaskPushNotificationConfig(config))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
