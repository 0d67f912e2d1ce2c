"""`hector sessions context` and `/context`: what the model would be sent next."""

from hector.cli.output import count, visible, visible_id
from hector.cli.sessions import mind_memory, print_json
from hector.cli.transcript import parts_json, parts_text, role_of
from hector.config.model import Config
from hector.domain.context import Context
from hector.domain.ids import SessionKey
from hector.domain.memory import Sent, Summary
from hector.domain.messages import JsonValue
from hector.runtime.build import open_runtime


async def show_context(config: Config, key: SessionKey, *, as_json: bool) -> int:
    mind_memory(config, key.agent_id)
    async with open_runtime(config, only_agent=key.agent_id, adopts=False) as runtime:
        await runtime.session(key)
        context = await runtime.context(key)
    if as_json:
        print_json(context_json(context))
    else:
        print(visible(context_text(context)))
    return 0


def context_text(context: Context) -> str:
    of = f" of {context.budget:,}" if context.budget else ""
    title = [
        f"session {visible_id(context.key.session_id)}",
        f"agent {context.key.agent_id}",
        f"{_tokens(context.all_tokens)}, {context.tokens:,}{of} for the conversation",
    ]
    blocks = [" · ".join(title)]
    if context.instructions:
        lines = [f"  {line}" for line in context.instructions.splitlines()]
        blocks.append("\n".join([f"instructions · {_tokens(context.instruction_tokens)}", *lines]))
    if context.tools:
        names = ", ".join(spec.name for spec, _ in context.tools)
        taken = sum(tokens for _, tokens in context.tools)
        blocks.append(f"{count(len(context.tools), 'tool')} · {_tokens(taken)}\n  {names}")
    if context.summary:
        sent = context.summary_sent
        cost = _cost(sent) if sent else "not sent, for want of room"
        lines = [f"  {line}" for line in context.summary.text.splitlines()]
        blocks.append("\n".join([f"summary of #1 to #{context.summary.through_seq} · {cost}", *lines]))
    if context.not_sent:
        first, last = context.not_sent
        which = f"#{first}" if first == last else f"#{first} to #{last}"
        blocks.append(f"{which} · not sent, and in no summary")
    blocks += ["\n".join([_title(each), *parts_text(each.message.parts)]) for each in context.messages]
    if not context.sent:
        blocks.append("no messages")
    return "\n\n".join(blocks)


def context_json(context: Context) -> dict[str, JsonValue]:
    summary = context.summary
    return {
        "session": context.key.session_id,
        "agent": context.key.agent_id,
        "user": context.key.user_id,
        "tokens": context.all_tokens,
        "messageTokens": context.tokens,
        "budget": context.budget,
        "instructions": {"text": context.instructions, "tokens": context.instruction_tokens},
        "tools": [{"name": spec.name, "tokens": tokens} for spec, tokens in context.tools],
        "summary": _summary_json(summary, context.summary_sent) if summary else None,
        "notSent": {"first": context.not_sent[0], "last": context.not_sent[1]} if context.not_sent else None,
        "messages": [
            {
                "seq": each.seqs[0],
                "role": role_of(each.message),
                "parts": parts_json(each.message.parts),
                "tokens": each.tokens,
                "cut": each.cut,
            }
            for each in context.messages
        ],
    }


def _summary_json(summary: Summary, sent: Sent | None) -> dict[str, JsonValue]:
    return {
        "throughSeq": summary.through_seq,
        "text": summary.text,
        "tokens": sent.tokens if sent else 0,
        "cut": sent is None or sent.cut,
    }


def _title(sent: Sent) -> str:
    return f"#{sent.seqs[0]} · {role_of(sent.message)} · {_cost(sent)}"


def _cost(sent: Sent) -> str:
    return f"{_tokens(sent.tokens)}, cut" if sent.cut else _tokens(sent.tokens)


def _tokens(number: int) -> str:
    return f"{number:,} token{'' if number == 1 else 's'}"
