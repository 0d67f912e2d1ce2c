"""A2A's methods by name, for the transports that call by name: JSON-RPC and gRPC."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hector.domain.errors import InvalidError
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields
from hector.server.a2a.incoming import SendRequest, read_send
from hector.server.a2a.listing import LONGEST_HISTORY, read_list
from hector.server.a2a.operations import Events, LastEvent, Operations
from hector.server.a2a.wire import Json
from hector.server.auth import Caller


@dataclass(frozen=True, slots=True)
class Asked:
    """A call with all that came with it."""

    operations: Operations
    agent: str
    caller: Caller
    dialect: Dialect
    params: Fields
    """As JSON over HTTP has them in bodies, paths and queries together."""
    after: LastEvent | None = None
    idempotency_key: str | None = None
    reached: str = ""
    """The URL under which the caller reached this server over HTTP."""

    @property
    def user_id(self) -> str:
        return self.caller.user_id

    def activate(self, method: str, extensions: tuple[str, ...]) -> tuple[str, ...]:
        """Those that the caller gets; a card is shown to all. Raises `ExtensionRequiredError`."""
        if method == "GetExtendedAgentCard":
            return ()
        return self.operations.activate(self.agent, self.dialect, extensions)

    def message(self) -> SendRequest:
        return read_send(self.params.values, version=self.dialect, idempotency_key=self.idempotency_key)

    def task_id(self) -> str:
        found = self.params.filled("id")
        if found is None:
            raise InvalidError("id", "is missing; wanted the id of a task")
        return found

    def task_of_config(self) -> str:
        """A2A 1.0 calls it `taskId` everywhere; 0.3 does where a configuration is made."""
        name = "id" if self.dialect is not Dialect.V1 and self.params.filled("taskId") is None else "taskId"
        found = self.params.filled(name)
        if found is None:
            raise InvalidError(name, "is missing; wanted the id of a task")
        return found

    def config_id(self) -> str | None:
        name = "id" if self.dialect is Dialect.V1 else "pushNotificationConfigId"
        found = self.params.filled(name)
        if found is None and self.dialect is Dialect.V1:
            raise InvalidError(name, "is missing; wanted the id of a push notification configuration")
        return found

    def history(self) -> int:
        wanted = self.params.count("historyLength") or 0
        if wanted > LONGEST_HISTORY:
            raise InvalidError("historyLength", f"wanted a whole number from 0 to {LONGEST_HISTORY}")
        return wanted


async def _send(asked: Asked) -> Json:
    return await asked.operations.send(asked.agent, asked.user_id, asked.message())


async def _stream(asked: Asked) -> Events:
    return await asked.operations.stream(asked.agent, asked.user_id, asked.message(), after=asked.after)


async def _get(asked: Asked) -> Json:
    return await asked.operations.task(
        asked.agent, asked.user_id, asked.task_id(), asked.dialect, history=asked.history()
    )


async def _list(asked: Asked) -> Json:
    asked.caller.check_browsing()
    return await asked.operations.listing.page(asked.agent, asked.user_id, read_list(asked.params))


async def _cancel(asked: Asked) -> Json:
    return await asked.operations.cancel(asked.agent, asked.user_id, asked.task_id(), asked.dialect)


async def _card(asked: Asked) -> Json:
    return asked.operations.extended_card(asked.agent, asked.reached, asked.dialect)


async def _subscribe(asked: Asked) -> Events:
    return await asked.operations.subscribe(
        asked.agent, asked.user_id, asked.task_id(), asked.dialect, after=asked.after
    )


async def _create_push(asked: Asked) -> Json:
    return await asked.operations.push.create(
        asked.agent, asked.user_id, asked.task_of_config(), asked.params, asked.dialect
    )


async def _get_push(asked: Asked) -> Json:
    return await asked.operations.push.get(
        asked.agent, asked.user_id, asked.task_of_config(), asked.config_id(), asked.dialect
    )


async def _list_pushes(asked: Asked) -> Json:
    return await asked.operations.push.list(asked.agent, asked.user_id, asked.task_of_config(), asked.dialect)


async def _delete_push(asked: Asked) -> Json:
    config_id = asked.config_id()
    if config_id is None:
        raise InvalidError("pushNotificationConfigId", "is missing; wanted the id of a configuration")
    return await asked.operations.push.delete(asked.agent, asked.user_id, asked.task_of_config(), config_id)


Unary: TypeAlias = Callable[[Asked], Awaitable[Json]]
Streaming: TypeAlias = Callable[[Asked], Awaitable[Events]]

UNARY: Mapping[str, Unary] = {
    "SendMessage": _send,
    "GetTask": _get,
    "ListTasks": _list,
    "CancelTask": _cancel,
    "GetExtendedAgentCard": _card,
    "CreateTaskPushNotificationConfig": _create_push,
    "GetTaskPushNotificationConfig": _get_push,
    "ListTaskPushNotificationConfigs": _list_pushes,
    "DeleteTaskPushNotificationConfig": _delete_push,
}
STREAMING: Mapping[str, Streaming] = {
    "SendStreamingMessage": _stream,
    "SubscribeToTask": _subscribe,
}
"""Both by the names of A2A 1.0; the answers are as JSON over HTTP has them."""

METHODS_OF_0_3: Mapping[str, str] = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/cancel": "CancelTask",
    "tasks/resubscribe": "SubscribeToTask",
    "agent/getAuthenticatedExtendedCard": "GetExtendedAgentCard",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
}
"""Of JSON-RPC, and the names that A2A 1.0 gave them."""
