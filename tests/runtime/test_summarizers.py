"""Who writes the summaries, by the configuration."""

import pytest

from hector.config import Config, loads
from hector.domain.errors import ConfigError
from hector.memory.summarizer import ModelSummarizer
from hector.runtime.build import open_runtime


def config(working: str) -> Config:
    return loads(
        f"""
        llms:
          echoes: {{type: scripted}}
          recalls: {{type: scripted, model: recall}}
        agents: {{a: {{llm: echoes, memory: {{working: {working}}}}}}}
        """
    )


async def test_without_a_word_the_agents_own_model_does() -> None:
    async with open_runtime(config("{budget: 1000}"), environ={}) as runtime:
        agent = runtime.agent("a")
        assert isinstance(agent.summarizer, ModelSummarizer)
        assert agent.summarizer.model is agent.model
        assert agent.memory.compaction
        assert (agent.memory.compaction.due_above, agent.memory.compaction.summary_limit) == (800, 300)


async def test_another_may_be_named() -> None:
    async with open_runtime(
        config("{threshold: 0.5, target: 0.2, summarizer: recalls}"), environ={}
    ) as runtime:
        agent = runtime.agent("a")
        assert isinstance(agent.summarizer, ModelSummarizer)
        assert (agent.model.name, agent.summarizer.model.name) == ("echo", "recall")
        assert agent.memory.compaction
        assert (agent.memory.compaction.due_above, agent.memory.compaction.summary_limit) == (1000, 200)


async def test_of_a_window_nothing_is_summarised() -> None:
    async with open_runtime(config("{strategy: buffer_window}"), environ={}) as runtime:
        assert runtime.agent("a").summarizer is None


async def test_one_that_there_is_not_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError) as error:
        async with open_runtime(config("{summarizer: recall}"), environ={}):
            pass
    (problem,) = error.value.problems
    assert problem.path == "agents.a.memory.working.summarizer"
    assert "llms here: echoes, recalls" in problem.text
