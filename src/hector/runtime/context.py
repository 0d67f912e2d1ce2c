"""What an agent's model would be sent next of a session."""

import json
from dataclasses import asdict

from hector.domain.agents import Agent
from hector.domain.context import Context
from hector.domain.ids import SessionKey
from hector.domain.summaries import SummaryStore


async def context_of(agent: Agent, store: SummaryStore, key: SessionKey) -> Context:
    tail = await store.tail(key, None, agent.memory.limit)
    sent = agent.memory.select(tail).sent
    # What stands for a summary has no message of its own.
    head = [each for each in sent if not each.seqs]
    compaction = agent.memory.compaction
    specs = [tool.spec for tool in agent.tools.values()]
    newest = tail.messages[-1].seq if tail.messages else None
    return Context(
        key=key,
        budget=compaction.budget if compaction else None,
        instructions=agent.instructions,
        instruction_tokens=agent.tokens.count(agent.instructions),
        tools=[(spec, agent.tokens.count(json.dumps(asdict(spec), default=str))) for spec in specs],
        summary=tail.summary,
        summary_sent=head[0] if head else None,
        messages=[each for each in sent if each.seqs],
        last_seq=newest or (tail.summary.through_seq if tail.summary else 0),
    )
