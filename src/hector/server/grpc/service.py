"""Both of A2A's gRPC services over the methods that JSON-RPC calls, too."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from a2a.compat.v0_3 import a2a_v0_3_pb2
from a2a.types import a2a_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue
from hector.server.a2a.dialect import Dialect, named_version
from hector.server.a2a.extensions import HEADER, OLD_HEADER, requested
from hector.server.a2a.fields import Fields
from hector.server.a2a.methods import STREAMING, UNARY, Asked, Streaming, Unary
from hector.server.a2a.operations import LastEvent, Operations
from hector.server.entrance import Entrance
from hector.server.grpc.failures import fail
from hector.server.grpc.protobuf import from_json, to_json
from hector.server.statuses import NoAgentNamedError, VersionNotSupportedError

logger = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handle: TypeAlias = Callable[[bytes, _Context], Awaitable[Any]]

_EXTENSIONS = frozenset({HEADER, OLD_HEADER})

STALLED = 30.0
"""Seconds for which a client may take nothing of what it is sent."""


@dataclass(frozen=True, slots=True)
class _Service:
    dialect: Dialect
    descriptor: ServiceDescriptor
    names: Mapping[str, str]
    """Of the methods that A2A 1.0 calls otherwise."""


_SERVICES = (
    _Service(Dialect.V1, a2a_pb2.DESCRIPTOR.services_by_name["A2AService"], {}),
    _Service(
        Dialect.V03_PROTO,
        a2a_v0_3_pb2.DESCRIPTOR.services_by_name["A2AService"],
        {
            "TaskSubscription": "SubscribeToTask",
            "GetAgentCard": "GetExtendedAgentCard",
            "ListTaskPushNotificationConfig": "ListTaskPushNotificationConfigs",
        },
    ),
)


def handlers(entrance: Entrance, *, stalled: float = STALLED) -> Iterator[grpc.GenericRpcHandler]:
    """For `grpc.aio.Server.add_generic_rpc_handlers`."""
    for service in _SERVICES:
        caller = _Door(entrance, service)
        methods: dict[str, Any] = {}
        for method in service.descriptor.methods:
            name = service.names.get(method.name, method.name)
            if unary := UNARY.get(name):
                handle, make = _unary(caller, method, name, unary), grpc.unary_unary_rpc_method_handler
            elif streaming := STREAMING.get(name):
                handle = _streaming(caller, method, name, streaming, stalled)
                make = grpc.unary_stream_rpc_method_handler
            else:
                continue
            # Requests are read where what is wrong with them can be told.
            methods[method.name] = make(handle, response_serializer=_written)
        yield grpc.method_handlers_generic_handler(service.descriptor.full_name, methods)


def _written(message: Message) -> bytes:
    return message.SerializeToString()


def _unary(door: "_Door", method: MethodDescriptor, name: str, run: Unary) -> _Handle:
    read, made = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    async def handle(request: bytes, context: _Context) -> Message:
        try:
            return from_json(await run(await door.asked(name, request, read, context)), made)
        except Exception as error:  # noqa: BLE001 - the last stop: whatever went wrong, the caller gets a status
            await fail(context, error)

    return handle


def _streaming(door: "_Door", method: MethodDescriptor, name: str, run: Streaming, stalled: float) -> _Handle:
    read, made = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    async def handle(request: bytes, context: _Context) -> None:
        try:
            async with aclosing(await run(await door.asked(name, request, read, context))) as events:
                async for _, event in events:
                    async with asyncio.timeout(stalled):
                        await context.write(from_json(event, made))
        except TimeoutError:
            # Its place is kept: it may subscribe again.
            logger.info("a client that stopped reading its stream is dropped")
            await context.abort(grpc.StatusCode.CANCELLED, "the stream was not read; subscribe to its task")
        except Exception as error:  # noqa: BLE001 - the last stop: whatever went wrong, the caller gets a status
            await fail(context, error)

    return handle


@dataclass(frozen=True, slots=True)
class _Door:
    """From a call as it comes to what a method is asked."""

    entrance: Entrance
    service: _Service

    async def asked(self, method: str, request: bytes, read: type[Message], context: _Context) -> Asked:
        self.entrance.check_stopping()
        metadata = {
            name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        authorization = metadata.get("authorization")
        caller = self.entrance.caller(authorization.encode() if authorization else None)
        version = metadata.get("a2a-version")
        if named_version(version) not in (None, self.service.dialect):
            raise VersionNotSupportedError(f"{version} in a call of {self.service.descriptor.full_name}")
        operations = await self.entrance.operations()
        params = _params(to_json(request, read))
        last = metadata.get("last-event-id")
        asked = Asked(
            operations,
            self._agent(operations, params, metadata),
            caller,
            self.service.dialect,
            Fields(params, ""),
            LastEvent.parse(last) if last else None,
            metadata.get("idempotency-key"),
            self.entrance.url,
        )
        extensions = [pair for pair in context.invocation_metadata() or () if pair[0] in _EXTENSIONS]
        if agreed := asked.activate(method, requested(str(value) for _, value in extensions)):
            names = dict.fromkeys(key for key, _ in extensions)
            await context.send_initial_metadata([(name, ", ".join(agreed)) for name in names])
        return asked

    def _agent(
        self, operations: Operations, params: Mapping[str, JsonValue], metadata: Mapping[str, str]
    ) -> str:
        named = params.get("tenant") or metadata.get("agent-name")
        try:
            return operations.agent_for(named if isinstance(named, str) else None)
        except NoAgentNamedError as error:
            raise InvalidError(
                "tenant",
                "is missing; wanted the name of an agent, here or in the metadata agent-name"
                f" (known: {', '.join(error.known)})",
            ) from None


def _params(request: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """A2A 0.3 names tasks as resources, `tasks/ID`, and what belongs to them below."""
    for field in ("name", "parent"):
        name = request.get(field)
        if isinstance(name, str):
            return {**request, **_of_resource(name, field)}
    return request


def _of_resource(name: str, field: str) -> Mapping[str, JsonValue]:
    kind, _, rest = name.partition("/")
    task_id, below, config_id = rest.partition("/pushNotificationConfigs/")
    if kind != "tasks" or not task_id or "/" in task_id or (below and not config_id):
        raise InvalidError(field, "wanted tasks/ID, with the id of a task")
    return {"id": task_id} | ({"pushNotificationConfigId": config_id} if below else {})
