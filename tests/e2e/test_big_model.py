"""What the embedded model's own file is chosen for: it repeats a fact when asked, in whatever words."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hector.domain.messages import Message, ModelMessage, Text, UserMessage
from hector.domain.models import ModelReply, ModelRequest
from hector.llm.embedded import DEFAULT_INSTRUCTIONS, EmbeddedModel
from hector.llm.weights import pull

pytestmark = pytest.mark.big_model

QUESTIONS = (
    "What is my project ID?",
    "What was my project ID?",
    "what's my project id",
    "Tell me my project ID.",
    "Which project ID did I give you?",
    "Do you remember my project ID?",
    "Can you repeat my project ID?",
    "My project ID, please?",
    "What project ID did I ask you to remember?",
    "Remind me: which project am I working on?",
    "What's the ID of my project?",
    "project id?",
)


@pytest.fixture
async def model() -> AsyncIterator[EmbeddedModel]:
    await asyncio.to_thread(pull)
    model = EmbeddedModel()
    yield model
    await model.close()


async def reply(model: EmbeddedModel, messages: list[Message]) -> ModelMessage:
    *_, last = [event async for event in model.respond(ModelRequest(DEFAULT_INSTRUCTIONS, messages))]
    assert isinstance(last, ModelReply)
    return last.message


async def test_it_recalls_what_it_was_told_however_it_is_asked(model: EmbeddedModel) -> None:
    told: list[Message] = [UserMessage((Text("Remember: my project ID is ALPHA-789"),))]
    told.append(await reply(model, told))
    missed = {}
    for question in QUESTIONS:
        answer = await reply(model, [*told, UserMessage((Text(question),))])
        if "ALPHA-789" not in answer.text:
            missed[question] = answer.text
    assert "What is my project ID?" not in missed, "the demo's own question"
    assert len(missed) <= 2, missed
