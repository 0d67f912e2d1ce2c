"""What a model or a tool wrote, made fit to be stored and told apart."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace

from hector.domain.messages import ModelMessage, ModelPart, Text, Thinking, ToolCall

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for NUL and for halves of surrogate pairs, which not every database takes."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def accepted(
    message: ModelMessage, *, used_ids: Collection[str], idempotent: Callable[[str], bool]
) -> ModelMessage:
    """The message as it is stored: each call with an id of its own, and with its tool's declaration."""
    taken = set(used_ids)
    parts: list[ModelPart] = []
    for part in message.parts:
        match part:
            case ToolCall():
                call_id = _unused(storable(part.id), taken)
                taken.add(call_id)
                name = storable(part.name)
                parts.append(ToolCall(call_id, name, storable(part.arguments), idempotent(name)))
            case Text() | Thinking():
                parts.append(replace(part, text=storable(part.text)))
            case _:
                parts.append(part)
    return ModelMessage(tuple(parts))


def _unused(call_id: str, taken: Collection[str]) -> str:
    if call_id and call_id not in taken:
        return call_id
    number = len(taken) + 1
    while (made := f"call_{number}") in taken:
        number += 1
    return made
