"""Push configurations, and what is still to be told to each."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete

from hector.domain.errors import InvalidError
from hector.domain.ids import SessionKey
from hector.domain.notices import Claim, Due, Notice
from hector.domain.push import MAX_CONFIGS, PushConfig
from hector.domain.turns import TurnState
from hector.storage.operations import Statement, execute
from hector.storage.store import SqlSessionStore
from hector.storage.tables import push_configs
from tests.contract.actor import KEY, Actor, CountingDriver, call, dump, text_of

CONFIG = PushConfig("c", "https://example.com/hook", "1.0", "tok", ("Bearer",), "secret")
LONG = 10**6


async def due(store: SqlSessionStore, one: Actor) -> Sequence[Due]:
    return (await store.due_pushes(one.id, 100)).due


async def claimed(store: SqlSessionStore, one: Actor) -> Claim:
    (found,) = await due(store, one)
    claim = await store.claim_push(found, one.id)
    assert claim
    return claim


async def tell_all(store: SqlSessionStore, claim: Claim) -> list[Notice]:
    """Everything there is to tell, until the claim is given up."""
    told: list[Notice] = []
    now: Claim | None = claim
    while now:
        notice = now.notices[0]
        told.append(notice)
        now = await store.told_push(now, notice.place)
    return told


async def told(store: SqlSessionStore, one: Actor) -> list[str]:
    """What there is to tell to the one configuration, which is then told."""
    return list(map(shown, await tell_all(store, await claimed(store, one))))


def shown(notice: Notice) -> str:
    said = "".join(text_of(each.message) for each in notice.turn.messages)
    state = "reply" if notice.is_reply else notice.turn.state.value
    return f"{state}: {said}" if said else state


# --- configurations


async def test_a_configuration_is_kept_as_it_was_made(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    assert await store.set_push("a", "u", turn.id, CONFIG) == CONFIG
    bare = PushConfig("é\U0001f600'", "https://example.com/", "0.3 json")
    assert await store.set_push("a", "u", turn.id, bare) == bare
    assert await store.pushes("a", "u", turn.id) == [CONFIG, bare]


async def test_a_configuration_without_an_id_has_its_tasks(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    made = await store.set_push("a", "u", turn.id, replace(CONFIG, id=""))
    assert made == replace(CONFIG, id=turn.id)


async def test_one_of_the_same_id_is_replaced(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    await store.set_push("a", "u", turn.id, CONFIG)
    other = PushConfig("c", "https://example.com/other", "0.3 json")
    await store.set_push("a", "u", turn.id, other)
    assert await store.pushes("a", "u", turn.id) == [other]


async def test_a_deleted_one_is_gone_and_may_be_deleted_again(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    turn_id = begun.lease.turn_id
    for _ in range(2):
        assert await store.delete_push("a", "u", turn_id, "c")
    assert await store.pushes("a", "u", turn_id) == []
    assert not await due(store, one)


async def test_configurations_are_their_users_alone(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    await store.set_push("a", "u", turn.id, CONFIG)
    for agent, user in (("a", "U"), ("b", "u"), ("a", "")):
        assert await store.set_push(agent, user, turn.id, CONFIG) is None
        assert await store.pushes(agent, user, turn.id) is None
        assert not await store.delete_push(agent, user, turn.id, "c")
    assert await store.pushes("a", "u", turn.id) == [CONFIG]


async def test_a_task_has_only_so_many(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    for number in range(MAX_CONFIGS):
        await store.set_push("a", "u", turn.id, replace(CONFIG, id=str(number)))
    with pytest.raises(InvalidError, match=f"has {MAX_CONFIGS} push notification configurations"):
        await store.set_push("a", "u", turn.id, CONFIG)
    assert await store.set_push("a", "u", turn.id, replace(CONFIG, id="3"))


async def test_ids_of_full_length_fit(store: SqlSessionStore, one: Actor) -> None:
    key = SessionKey("a" * 64, "\U0001f600" * 255, "\U0001f600" * 191)
    begun = await one.begin(key=key, push=replace(CONFIG, id="\U0001f600" * 191))
    assert await told(store, one) == ["working"]
    await one.answer(begun)


async def test_a_deleted_session_takes_its_configurations_along(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    ended = await one.turn(key=replace(KEY, session_id="other"))
    await store.set_push("a", "u", ended.id, CONFIG)
    assert list(await store.open_pushes(KEY)) == [(begun.lease.turn_id, CONFIG)]
    assert not await store.open_pushes(ended.key), "its turn has ended"
    await store.delete(KEY)
    await store.delete(ended.key)
    rows = await dump(store)
    assert (rows["push_configs"], rows["push_deliveries"]) == ([], [])


# --- what there is to tell


async def test_a_turn_tells_that_it_works_its_reply_and_its_end(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    claim = await claimed(store, one)
    assert (claim.config, claim.first) == (CONFIG, True)
    assert [shown(notice) for notice in await tell_all(store, claim)] == ["working"]
    assert not await due(store, one)
    assert (await store.due_pushes(one.id, 9)).open
    lease = await store.append(begun.lease, [call("look", idempotent=True)])
    assert not await due(store, one), "a step is no change of state"
    await one.answer(replace(begun, lease=lease), "it is noon")
    claim = await claimed(store, one)
    assert not claim.first
    assert [shown(notice) for notice in await tell_all(store, claim)] == [
        "reply: it is noon",
        "completed: it is noon",
    ]
    assert await store.due_pushes(one.id, 9) == ([], False)
    assert await store.pushes("a", "u", begun.lease.turn_id) == [CONFIG]


async def test_who_comes_late_is_told_all_in_its_order(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    turn = await one.pause(begun, "which?")
    again = await one.begin("this", resumes=turn.id)
    await one.pause(again, "sure?")
    await one.answer(await one.begin("yes", resumes=turn.id), "done")
    assert await told(store, one) == [
        "working",
        "input_required: which?",
        "working",
        "input_required: sure?",
        "working",
        "reply: done",
        "completed: done",
    ]


async def test_a_pause_that_comes_again_is_told_again(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.pause(await one.begin(push=CONFIG), "which?")
    assert await told(store, one) == ["working", "input_required: which?"]
    assert not await due(store, one)
    await one.pause(await one.begin("this", resumes=turn.id), "sure?")
    assert await told(store, one) == ["working", "input_required: sure?"]


async def test_a_waiting_turn_tells_that_it_was_submitted(store: SqlSessionStore, one: Actor) -> None:
    first = await one.begin()
    await one.wait(push=CONFIG)
    assert await told(store, one) == ["submitted"]
    await one.answer(first)
    await one.answer(await one.must_take(), "ok")
    assert await told(store, one) == ["working", "reply: ok", "completed: ok"]


async def test_a_turn_that_waited_tells_it_also_late(store: SqlSessionStore, one: Actor) -> None:
    first = await one.begin()
    await one.wait(push=CONFIG)
    await one.answer(first)
    await one.answer(await one.must_take(), "ok")
    assert await told(store, one) == ["submitted", "working", "reply: ok", "completed: ok"]


async def test_a_canceled_turn_tells_what_it_was_before(store: SqlSessionStore, one: Actor) -> None:
    first = await one.begin()
    waiting = await one.wait(push=CONFIG)
    await store.cancel(KEY, waiting.turn_id)
    assert await told(store, one) == ["submitted", "canceled"]
    await one.answer(first)
    working = await one.begin(push=CONFIG)
    lease = await store.append(working.lease, [call("look")])
    await store.cancel(KEY, lease.turn_id)
    assert [each.split(":")[0] for each in await told(store, one)] == ["working", "canceled"]
    paused = await one.pause(await one.begin(push=CONFIG), "which?")
    await store.cancel(KEY, paused.id)
    assert (await told(store, one))[:2] == ["working", "input_required: which?"]


async def test_a_pause_that_was_told_before_its_turn_was_canceled_is_told_once(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin(push=CONFIG), "which?")
    await told(store, one)
    await store.cancel(KEY, paused.id)
    assert [each.split(":")[0] for each in await told(store, one)] == ["canceled"]


async def test_a_failure_is_told_with_its_reason(store: SqlSessionStore, one: Actor) -> None:
    await one.fail(await one.begin(push=CONFIG), "model_auth")
    working, failed = await tell_all(store, await claimed(store, one))
    assert (working.turn.state, working.turn.error) == (TurnState.WORKING, None)
    assert (failed.turn.state, failed.turn.reason) == (TurnState.FAILED, "model_auth")


async def test_another_attempt_is_no_change_of_state(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    await one.begin(push=CONFIG)
    assert await told(store, two) == ["working"]
    await one.die()
    again = await two.must_take()
    (found,) = await due(store, two)
    assert await store.claim_push(found, two.id) is None
    assert not await due(store, two), "the look was noted"
    await two.answer(again, "ok")
    assert await told(store, two) == ["reply: ok", "completed: ok"]


async def test_one_made_later_is_told_first_how_the_task_stands(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    turn_id = begun.lease.turn_id
    await store.set_push("a", "u", turn_id, CONFIG)
    assert await told(store, one) == ["working"]
    await one.pause(begun, "which?")
    await store.set_push("a", "u", turn_id, CONFIG)
    assert await told(store, one) == ["input_required: which?"]
    await one.answer(await one.begin("this", resumes=turn_id), "done")
    await store.set_push("a", "u", turn_id, CONFIG)
    assert await told(store, one) == ["completed: done"]
    assert not (await store.due_pushes(one.id, 9)).open


async def test_one_made_with_an_answer_is_told_what_that_leads_to(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.pause(await one.begin(), "which?")
    again = await one.begin("this", resumes=turn.id, push=CONFIG)
    assert await told(store, one) == ["working"]
    await one.pause(again, "sure?")
    other = await one.begin(key=KEY)
    await one.wait("yes", resumes=turn.id, push=replace(CONFIG, id="d"))
    claims = [await store.claim_push(each, one.id) for each in await due(store, one)]
    assert [claim.config.id for claim in claims if claim] == ["c"], "the other waits for its turn to go on"
    await one.answer(other)


async def test_a_repeat_makes_no_configuration(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hi", "m", push=CONFIG)
    await one.send("hi", "m", push=replace(CONFIG, id="d"))
    await store.delete_push("a", "u", begun.lease.turn_id, "c")
    await one.answer(begun)
    await one.send("hi", "m", push=CONFIG)
    assert await store.pushes("a", "u", begun.lease.turn_id) == []


async def test_a_message_tried_again_tells_its_new_turn(store: SqlSessionStore, one: Actor) -> None:
    await one.fail(await one.begin("hi", "m", push=CONFIG))
    await told(store, one)
    again = await one.begin("hi", "m", push=CONFIG)
    claim = await claimed(store, one)
    assert claim.target.turn_id == again.lease.turn_id


async def test_a_turn_in_anothers_place_tells_what_is_its_own(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order"), "which?")
    await one.fail(await one.begin("this", "m", resumes=paused.id))
    again = await one.begin("this", "m", resumes=paused.id, push=CONFIG)
    assert again.lease.turn_id != paused.id
    assert await told(store, one) == ["working"]
    await one.pause(again, "sure?")
    assert await told(store, one) == ["input_required: sure?"]
    await one.answer(await one.begin("yes", resumes=again.lease.turn_id), "done")
    assert await told(store, one) == ["working", "reply: done", "completed: done"]


async def test_a_turn_in_anothers_place_that_waits_tells_it(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order"), "which?")
    await one.fail(await one.begin("this", "m", resumes=paused.id))
    other = await one.begin("meanwhile")
    waiting = await one.wait("this", "m", resumes=paused.id, push=CONFIG)
    assert await told(store, one) == ["submitted"]
    await store.set_push("a", "u", waiting.turn_id, CONFIG)
    await store.cancel(KEY, waiting.turn_id)
    assert await told(store, one) == ["submitted", "canceled"]
    await one.answer(other)


# --- who tells it


async def test_one_alone_tells_a_configuration(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    await one.begin(push=CONFIG)
    (found,) = await due(store, one)
    claims = await asyncio.gather(*(store.claim_push(found, actor.id) for actor in (one, two)))
    assert sum(claim is not None for claim in claims) == 1
    (owner,) = [claim.owner for claim in claims if claim]
    other = two if owner == one.id else one
    assert not await due(store, other)


async def test_a_look_that_is_out_of_date_takes_nothing(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    await one.begin(push=CONFIG)
    (found,) = await due(store, one)
    claim = await store.claim_push(found, one.id)
    assert claim
    await store.put_off_push(claim, 0, LONG)
    assert await store.claim_push(found, two.id) is None
    assert await store.claim_push(found, one.id) is None
    assert (await claimed(store, two)).owner == two.id


async def test_what_a_dead_replica_was_telling_is_told_by_another(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin(push=CONFIG)
    await one.pause(begun, "which?")
    lost = await claimed(store, one)
    held = await store.told_push(lost, lost.notices[0].place)
    assert held
    assert not await due(store, two)
    await one.die()
    claim = await claimed(store, two)
    assert [shown(notice) for notice in claim.notices] == ["input_required: which?"], "not what was told"
    assert await store.told_push(held, held.notices[0].place) is None, "the dead one wakes up"
    assert await store.put_off_push(held, 0, LONG)
    await store.end_push(held)
    assert [shown(notice) for notice in await tell_all(store, claim)] == ["input_required: which?"]


async def test_ones_own_claim_that_nobody_works_on_can_be_taken_again(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.begin(push=CONFIG)
    first = await claimed(store, one)
    second = await claimed(store, one)
    assert second.epoch == first.epoch + 1
    assert await store.told_push(first, first.notices[0].place) is None


async def test_a_claim_ends_with_its_configuration(store: SqlSessionStore, one: Actor) -> None:
    turn_id = (await one.begin(push=CONFIG)).lease.turn_id
    claim = await claimed(store, one)
    await store.set_push("a", "u", turn_id, CONFIG)
    assert await store.told_push(claim, claim.notices[0].place) is None
    other = await claimed(store, one)
    assert other.first
    assert await store.told_push(claim, claim.notices[0].place) is None
    assert await due(store, one), "nor may it tell this one"
    await store.delete_push("a", "u", turn_id, "c")
    assert await store.told_push(other, other.notices[0].place) is None
    assert (await dump(store))["push_deliveries"] == []


async def test_what_happens_while_it_is_told_is_told_by_the_same(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    claim = await claimed(store, one)
    await one.answer(begun, "ok")
    now = await store.told_push(claim, claim.notices[0].place)
    assert now
    assert [shown(notice) for notice in now.notices] == ["reply: ok", "completed: ok"]


async def test_what_failed_is_tried_when_its_time_has_come(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    assert await store.put_off_push(await claimed(store, one), LONG, LONG)
    assert not await due(store, one)
    await one.answer(begun)
    assert not await due(store, one), "news do not hurry it"
    assert (await store.due_pushes(one.id, 9)).open
    await store.set_push("a", "u", begun.lease.turn_id, replace(CONFIG, id="d"))
    assert await store.put_off_push(await claimed(store, one), 0, LONG)
    again = await claimed(store, one)
    assert again.failures == 1
    assert await store.put_off_push(again, 0, LONG)
    assert (await claimed(store, one)).failures == 2


async def test_a_success_ends_a_series_of_failures(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    await one.answer(begun)
    await store.put_off_push(await claimed(store, one), 0, LONG)
    claim = await claimed(store, one)
    now = await store.told_push(claim, claim.notices[0].place)
    assert now
    assert now.failures == 0
    await store.put_off_push(now, 0, LONG)
    assert (await claimed(store, one)).failures == 1


async def test_what_failed_for_too_long_is_left_out(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.pause(await one.begin(push=CONFIG), "which?")
    claim = await claimed(store, one)
    assert not await store.put_off_push(claim, 0, 0)
    assert not await due(store, one)
    await one.answer(await one.begin("this", resumes=turn.id), "done")
    assert await told(store, one) == ["working", "reply: done", "completed: done"]


async def test_after_the_end_nothing_is_left_of_what_failed_for_too_long(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.answer(await one.begin(push=CONFIG))
    assert not await store.put_off_push(await claimed(store, one), 0, 0)
    assert await store.due_pushes(one.id, 9) == ([], False)


async def test_who_is_gone_is_told_nothing_more(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    await store.end_push(await claimed(store, one))
    await one.answer(begun)
    assert await store.due_pushes(one.id, 9) == ([], False)
    assert await store.pushes("a", "u", begun.lease.turn_id) == [CONFIG]


async def test_those_that_fail_are_looked_at_last(store: SqlSessionStore, one: Actor) -> None:
    keys = [replace(KEY, session_id=str(number)) for number in range(3)]
    turns = [(await one.begin(key=key, push=CONFIG)).lease.turn_id for key in keys]
    first, *_ = await due(store, one)
    claim = await store.claim_push(first, one.id)
    assert claim
    await store.put_off_push(claim, 0, LONG)
    order = [each.target.turn_id for each in await due(store, one)]
    assert (sorted(order), order[-1]) == (sorted(turns), first.target.turn_id)
    assert len((await store.due_pushes(one.id, 2)).due) == 2


async def test_what_an_older_release_left_is_cleared_away(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin(push=CONFIG)
    # Its DELETE knows nothing of deliveries.
    await store._driver.write(partial(execute, Statement(delete(push_configs)), {}))
    (found,) = await due(store, one)
    assert await store.claim_push(found, one.id) is None
    assert (await dump(store))["push_deliveries"] == []
    await one.answer(begun)


async def test_a_turn_without_configurations_pays_nothing(store: SqlSessionStore, one: Actor) -> None:
    async def cost(session: str, **given: Any) -> tuple[int, int]:
        """Statements of a turn's begin and end."""
        counting = CountingDriver(store._driver)
        actor = Actor(SqlSessionStore(counting), one.id)
        begun = await actor.begin(key=replace(KEY, session_id=session), **given)
        before = counting.statements
        await actor.answer(begun)
        return before, counting.statements - before

    plain = await cost("plain")
    other = await one.begin(key=replace(KEY, session_id="other"), push=CONFIG)
    assert await cost("beside one") == plain
    begins, ends = await cost("with one", push=CONFIG)
    assert (begins > plain[0], ends) == (True, plain[1]), "the end costs the same with one"
    await one.answer(other)
