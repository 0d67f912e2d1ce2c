"""One answer of a model, asked for through pydantic-ai. Heavy: imports it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from hector.domain.errors import ModelError, ModelRequestError, ModelUnreachableError
from hector.domain.models import ModelEvent, ModelReply, ModelRequest
from hector.llm.failures import pause_before_retry, translated
from hector.llm.translate import delta_of, messages_for, parameters_for, reply_of


async def exchange(
    model: Model, request: ModelRequest, *, name: str, base_url_from: str = "", retry_pauses: Sequence[float]
) -> AsyncGenerator[ModelEvent, None]:
    """Ask, and ask again as long as nothing has been answered yet and the failure may pass."""
    for pause in (*retry_pauses, None):
        answered = False
        try:
            async with aclosing(_ask(model, request, name, base_url_from)) as answer:
                async for event in answer:
                    answered = True
                    yield event
        except ModelError as error:
            wait = None if answered or pause is None else pause_before_retry(error, pause)
            if wait is None:
                raise
            await asyncio.sleep(wait)
        else:
            return


async def _ask(
    model: Model, request: ModelRequest, name: str, base_url_from: str
) -> AsyncGenerator[ModelEvent, None]:
    with translated(name, base_url_from):
        messages = messages_for(request.messages, model)
        parameters = parameters_for(request, model)
        settings = ModelSettings(max_tokens=request.longest) if request.longest else None
        if request.stream:
            async with model_request_stream(
                model,
                messages,
                model_settings=settings,
                model_request_parameters=parameters,
                instrument=False,
            ) as stream:
                async for event in stream:
                    delta = delta_of(event)
                    if delta is not None:
                        yield delta
            response = stream.get()
        else:
            response = await model_request(
                model,
                messages,
                model_settings=settings,
                model_request_parameters=parameters,
                instrument=False,
            )
        reply = _checked_reply(response, name)
    yield reply


def _checked_reply(response: ModelResponse, name: str) -> ModelReply:
    """An answer that was cut at its length is an answer, and so is an empty one."""
    if response.finish_reason == "content_filter":
        raise ModelRequestError(
            f"the content filter of the provider of {name!r} refused the request or its answer"
        )
    if response.finish_reason == "error":
        raise ModelUnreachableError(f"the provider of {name!r} broke off its answer; try again later")
    return reply_of(response)
