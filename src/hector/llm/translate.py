"""Domain messages to pydantic-ai's and back. Heavy: imports pydantic-ai."""

import json
from collections.abc import Sequence
from typing import assert_never

from pydantic_ai import messages as wire
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from hector.domain.events import TextDelta, ThinkingDelta
from hector.domain.messages import (
    Data,
    File,
    Message,
    ModelMessage,
    ModelPart,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from hector.domain.models import ModelReply, ModelRequest

_READABLE = frozenset(
    {
        "application/pdf",
        "audio/mpeg",
        "audio/wav",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
    }
)
"""What chat models take as bytes; of everything else they are told that it is there."""
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml")


def messages_for(messages: Sequence[Message], model: Model) -> list[wire.ModelMessage]:
    """Neighbours of one side become one message, so that all results of parallel calls stand together."""
    sent: list[wire.ModelMessage] = []
    for message in messages:
        match message:
            case ModelMessage(parts=parts):
                sent.append(_response(parts, model))
            case UserMessage(parts=parts):
                _add_request(sent, wire.UserPromptPart(_prompt(parts, model)))
            case ToolMessage(result=result):
                _add_request(sent, _tool_return(result))
            case _:
                assert_never(message)
    return sent


def parameters_for(request: ModelRequest, model: Model) -> ModelRequestParameters:
    schema = request.output_schema
    held = schema is not None and bool(model.profile.get("supports_json_schema_output"))
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters)
            )
            for tool in request.tools
        ],
        instruction_parts=[wire.InstructionPart(request.instructions)] if request.instructions else [],
        output_mode="native" if held else "text",
        output_object=OutputObjectDefinition(dict(schema), "answer", strict=True)
        if schema and held
        else None,
    )


def delta_of(event: wire.ModelResponseStreamEvent) -> TextDelta | ThinkingDelta | None:
    """What a listener is told at once; tool calls wait for the whole reply."""
    match event:
        case wire.PartDeltaEvent(delta=wire.TextPartDelta(content_delta=text)) if text:
            return TextDelta(text)
        case wire.PartDeltaEvent(delta=wire.ThinkingPartDelta(content_delta=text)) if text:
            return ThinkingDelta(text)
        case wire.PartStartEvent(part=wire.TextPart(content=text)) if text:
            return TextDelta(text)
        case wire.PartStartEvent(part=wire.ThinkingPart(content=text)) if text:
            return ThinkingDelta(text)
        case _:
            return None


def reply_of(response: wire.ModelResponse) -> ModelReply:
    parts: list[ModelPart] = []
    for part in response.parts:
        match part:
            case wire.TextPart(content=text):
                if text:
                    parts.append(Text(text))
            case wire.ThinkingPart():
                parts.append(Thinking(part.content, _signature(part)))
            case wire.ToolCallPart():
                parts.append(ToolCall(part.tool_call_id, part.tool_name, _arguments(part)))
            case _:
                # Calls of the provider's own tools, files and compactions: Hector asks for none of them.
                pass
    usage = Usage(response.usage.input_tokens, response.usage.output_tokens)
    return ModelReply(ModelMessage(tuple(parts)), usage)


def _add_request(sent: list[wire.ModelMessage], part: wire.UserPromptPart | wire.ToolReturnPart) -> None:
    last = sent[-1] if sent else None
    if isinstance(last, wire.ModelRequest):
        last.parts = [*last.parts, part]
    else:
        sent.append(wire.ModelRequest([part]))


def _prompt(parts: tuple[UserPart, ...], model: Model) -> str | list[wire.UserContent]:
    content = [_user_content(part, model) for part in parts]
    texts = [item for item in content if isinstance(item, str)]
    # One string where that is all: the oldest servers of this protocol take nothing else.
    return "\n\n".join(texts) if len(texts) == len(content) else content


def _user_content(part: UserPart, model: Model) -> wire.UserContent:
    match part:
        case Text(text=text):
            return text
        case Data(value=value):
            return json.dumps(value, ensure_ascii=False)
        case File(data=bytes() as data, media_type=media_type) if media_type in _READABLE:
            return wire.BinaryContent(data, media_type=media_type)
        case File(data=bytes() as data, media_type=media_type) if (media_type or "").startswith(_TEXT_TYPES):
            return _text_file(part, data)
        case File(url=str() as url, media_type=media_type) if _provider_may_fetch(url, media_type, model):
            return wire.ImageUrl(url, media_type=media_type)
        case File():
            return _mention(part)
        case _:
            assert_never(part)


def _provider_may_fetch(url: str, media_type: str | None, model: Model) -> bool:
    # A model server in the operator's own network must not be made to fetch what a caller names.
    return model.system == "openai" and url.startswith("https://") and (media_type or "").startswith("image/")


def _text_file(file: File, data: bytes) -> str:
    return f"[file {file.name or 'without a name'}]\n{data.decode(errors='replace')}"


def _mention(file: File) -> str:
    size = file.size if file.data is None else len(file.data)
    known = (
        file.name or "without a name",
        file.media_type,
        f"{size} bytes" if size is not None else None,
        # A data URL is the file itself, in letters.
        file.url if file.url is not None and not file.url.startswith("data:") else None,
    )
    return f"[file {', '.join(fact for fact in known if fact)}: its content cannot be shown here]"


def _response(parts: tuple[ModelPart, ...], model: Model) -> wire.ModelResponse:
    sent: list[wire.ModelResponsePart] = []
    for part in parts:
        match part:
            case Text(text=text):
                sent.append(wire.TextPart(text))
            case Data(value=value):
                sent.append(wire.TextPart(json.dumps(value, ensure_ascii=False)))
            case File():
                sent.append(wire.TextPart(_mention(part)))
            case ToolCall(id=call_id, name=name, arguments=arguments):
                sent.append(wire.ToolCallPart(name, arguments, call_id))
            case Thinking():
                sent.extend(_thinking(part))
            case _:
                assert_never(part)
    return wire.ModelResponse(sent, provider_name=model.system)


def _tool_return(result: ToolResult) -> wire.ToolReturnPart:
    return wire.ToolReturnPart(
        result.name, result.text, result.call_id, outcome="failed" if result.is_error else "success"
    )


def _arguments(call: wire.ToolCallPart) -> str:
    """As the model wrote them. Some write nothing where a tool takes nothing."""
    if isinstance(call.args, str):
        return call.args or "{}"
    return json.dumps(call.args or {}, ensure_ascii=False)


def _signature(part: wire.ThinkingPart) -> str | None:
    """All that pydantic-ai needs to send the thought back to whoever thought it, and to nobody else."""
    if part.provider_name is None or part.id == "content":
        # From tags in the text; providers want these left out afterwards.
        return None
    return json.dumps({"provider": part.provider_name, "id": part.id, "signature": part.signature})


def _thinking(part: Thinking) -> list[wire.ThinkingPart]:
    """Nothing without a signature: as plain text it would teach the model to think aloud."""
    if part.signature is None:
        return []
    try:
        origin = json.loads(part.signature)
    except ValueError:
        return []
    match origin:
        case {"provider": str() as provider, "id": id_, "signature": signature}:
            return [wire.ThinkingPart(part.text, id=id_, signature=signature, provider_name=provider)]
        case _:
            return []
