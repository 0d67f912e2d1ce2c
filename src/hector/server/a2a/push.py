"""Push notification configurations in the dialects, and what webhooks are told."""

import json
import re
import uuid
from collections.abc import Sequence

from hector.domain.errors import InvalidError, NotFoundError
from hector.domain.ids import check_message_id
from hector.domain.messages import JsonValue
from hector.domain.notices import Notice
from hector.domain.push import PushConfig
from hector.runtime.push.deliveries import Body
from hector.runtime.push.targets import TargetError
from hector.runtime.runtime import Runtime
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields
from hector.server.a2a.wire import Json
from hector.server.statuses import PushNotSupportedError

_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_IN_A_HEADER = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?")
_MOST_SCHEMES = 10


class Pushes:
    """What A2A's operations do with the configurations of one task; answers are in the caller's dialect."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def check(self, agent: str, config: PushConfig, place: str) -> None:
        """`place`: where the configuration stands in what the caller sent.

        Raises `PushNotSupportedError`, and `InvalidError` for a webhook that is not called.
        """
        self.check_served(agent, place)
        try:
            await self._runtime.check_push(agent, config.url)
        except TargetError as error:
            raise InvalidError(f"{place}.url" if place else "url", str(error)) from None

    def check_served(self, agent: str, field: str = "pushNotificationConfigs") -> None:
        """Raises `PushNotSupportedError`."""
        if not self._runtime.pushes(agent):
            raise PushNotSupportedError(field)

    async def create(self, agent: str, user_id: str, task_id: str, fields: Fields, dialect: Dialect) -> Json:
        """`fields`: of the request's body, with the configuration itself or around it."""
        self.check_served(agent)
        config, place = read_around(fields, dialect)
        await self.check(agent, config, place)
        return _written(dialect, task_id, await self._runtime.set_push(agent, user_id, task_id, config))

    async def get(
        self, agent: str, user_id: str, task_id: str, config_id: str | None, dialect: Dialect
    ) -> Json:
        """Without an id, which A2A 0.3 may leave out, the one that was made without, or the oldest."""
        self.check_served(agent)
        configs = await self._runtime.push_configs(agent, user_id, task_id)
        wanted = [config for config in configs if config.id == (config_id or task_id)]
        found = wanted or (configs if config_id is None else ())
        if not found:
            raise NotFoundError("push notification configuration", config_id or task_id)
        return _written(dialect, task_id, found[0])

    async def list(self, agent: str, user_id: str, task_id: str, dialect: Dialect) -> Json:
        self.check_served(agent)
        configs = await self._runtime.push_configs(agent, user_id, task_id)
        return {"configs": [_written(dialect, task_id, config) for config in configs]}

    async def delete(self, agent: str, user_id: str, task_id: str, config_id: str) -> Json:
        self.check_served(agent)
        await self._runtime.delete_push(agent, user_id, task_id, config_id)
        return {}


# --- reading


def is_around(fields: Fields) -> bool:
    """The body is A2A 0.3's, which has the configuration in a field of its own."""
    return fields.raw("config") is not None or fields.raw("pushNotificationConfig") is not None


def read_around(fields: Fields, dialect: Dialect) -> tuple[PushConfig, str]:
    """The configuration, and its place: A2A 0.3 has it one or two fields deeper."""
    inside = fields.object("config") or fields
    inside = inside.object("pushNotificationConfig") or inside
    named = fields.filled("configId") if inside is not fields else None
    return read_config(inside, dialect, config_id=named), inside.place


def read_config(fields: Fields, dialect: Dialect, *, config_id: str | None = None) -> PushConfig:
    """Raises `InvalidError`; where its webhook is, is looked at later."""
    named = fields.filled("id") or config_id
    if named is not None:
        check_message_id(named, fields.path("id"))
    elif dialect is Dialect.V1:
        named = str(uuid.uuid4())
    url = fields.filled("url")
    if url is None:
        raise InvalidError(fields.path("url"), "is missing; wanted the URL of a webhook")
    token = _in_a_header(fields, "token")
    schemes, credentials = _read_authentication(fields, dialect)
    # In 0.3 a configuration without an id is the task's own, which is set again.
    return PushConfig(named or "", url, dialect.value, token, schemes, credentials)


def _read_authentication(fields: Fields, dialect: Dialect) -> tuple[Sequence[str], str | None]:
    """One scheme in A2A 1.0, a list of them in 0.3, which may be empty: protobuf's writers send it so."""
    said = fields.object("authentication")
    if said is None:
        return (), None
    named = said.filled("scheme")
    listed = said.raw("schemes")
    found: list[JsonValue] = [named] if named else listed if isinstance(listed, list) else []
    if dialect is not Dialect.V1 and listed in (None, []) and not (named or said.filled("credentials")):
        return (), None
    schemes = [each for each in found if isinstance(each, str) and _SCHEME.fullmatch(each)]
    if not schemes or len(schemes) != len(found) or len(schemes) > _MOST_SCHEMES:
        field = said.path("scheme" if listed is None else "schemes")
        raise InvalidError(field, "wanted a scheme of HTTP authentication, like Bearer")
    return tuple(schemes), _in_a_header(said, "credentials")


def _in_a_header(fields: Fields, name: str) -> str | None:
    text = fields.filled(name)
    if text is not None and not _IN_A_HEADER.fullmatch(text):
        raise InvalidError(
            fields.path(name), "wanted 1 to 4096 characters of ASCII, for it travels in an HTTP header"
        )
    return text


# --- writing


def _written(dialect: Dialect, task_id: str, config: PushConfig) -> Json:
    made: Json = {"id": config.id, "url": config.url}
    if config.token:
        made["token"] = config.token
    if config.schemes:
        credentials: Json = {"credentials": config.credentials} if config.credentials else {}
        schemes: Json = (
            {"scheme": config.schemes[0]} if dialect is Dialect.V1 else {"schemes": list(config.schemes)}
        )
        made["authentication"] = schemes | credentials
    if dialect is Dialect.V1:
        return made | {"taskId": task_id}
    named: Json = (
        {"taskId": task_id}
        if dialect is Dialect.V03_JSON
        else {"name": f"tasks/{task_id}/pushNotificationConfigs/{config.id}"}
    )
    return named | {"pushNotificationConfig": made}


def write_notice(config: PushConfig, notice: Notice, *, first: bool) -> Body | None:
    """What a webhook is sent; None where its version of A2A has nothing for it."""
    if config.dialect != Dialect.V1.value:
        # 0.3 sends the task each time, in the JSON of its own, whichever way the configuration came.
        if notice.is_reply:
            return None
        return Body("application/json", _json(wire.task(Dialect.V03_JSON, notice.turn)))
    return Body("application/a2a+json", _json(_update(notice, first=first)))


def _update(notice: Notice, *, first: bool) -> Json:
    """As a stream of A2A 1.0 has it: the task, then its updates."""
    turn = notice.turn
    if first:
        return {"task": wire.task(Dialect.V1, turn)}
    if notice.is_reply:
        parts = wire.reply_parts(turn)
        return wire.artifact_update(Dialect.V1, turn.key, turn.id, parts, append=False, last=True)
    status = wire.status_of(Dialect.V1, turn)
    return wire.status_update(Dialect.V1, turn.key, turn.id, status, final=False, metadata=wire.why(turn))


def _json(value: Json) -> bytes:
    # Escaped, for a provider may have cut a surrogate pair in two.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
