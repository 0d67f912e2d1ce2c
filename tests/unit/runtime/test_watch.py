"""Who is dead, by what a replica has seen of the others, at times that are made up."""

import math
from dataclasses import replace

import pytest

from hector.domain.replicas import ReplicaRow
from hector.runtime.watch import Look, Watch

TTL, GAP, STILLNESS = 15.0, 7.5, 7.5
ROW = ReplicaRow("r", "", TTL, 4, "lock")
FREED = frozenset({"r"})


@pytest.fixture
def watch() -> Watch:
    return Watch(GAP, lambda ttl: ttl / 2)


def look(at: float, row: ReplicaRow = ROW, *, freed: frozenset[str] = frozenset()) -> Look:
    return Look(at, at, [row], freed)


def test_a_counter_that_stood_still_for_the_ttl_means_death_whatever_the_lock(watch: Watch) -> None:
    for at in (0.0, 5.0, 10.0, 14.9):
        assert not watch.judge(look(at)).dead
    assert watch.judge(look(15.0)).dead == [ROW]


def test_a_free_lock_and_a_counter_that_missed_a_beat_mean_death(watch: Watch) -> None:
    assert not watch.judge(look(0.0)).dead
    assert not watch.judge(look(5.0, freed=FREED)).dead
    assert watch.judge(look(7.5, freed=FREED)).dead == [ROW]


def test_a_counter_that_missed_a_beat_means_nothing_without_a_free_lock(watch: Watch) -> None:
    assert not watch.judge(look(0.0, freed=FREED)).dead
    assert not watch.judge(look(7.5)).dead


def test_a_free_lock_means_nothing_as_long_as_the_counter_goes_on(watch: Watch) -> None:
    for beats in range(8):
        verdict = watch.judge(look(5.0 * beats, replace(ROW, counter=beats), freed=FREED))
        assert not verdict.dead


def test_the_next_look_comes_as_soon_as_somebody_can_be_judged(watch: Watch) -> None:
    assert watch.judge(Look(-1.0, -1.0, [], frozenset())).again == math.inf
    assert watch.judge(look(0.0)).again == 15.0
    assert watch.judge(look(5.0, freed=FREED)).again == 7.5
    assert watch.judge(look(6.0, replace(ROW, counter=5), freed=FREED)).again == 13.5


def test_where_a_free_lock_is_proof_the_first_look_is_enough() -> None:
    assert Watch(GAP, lambda ttl: 0.0).judge(look(0.0, freed=FREED)).dead == [ROW]


def test_what_was_seen_before_a_gap_proves_nothing(watch: Watch) -> None:
    """The store was away, or we stood still: nobody could beat, or we cannot know that they did not."""
    watch.judge(look(0.0))
    assert not watch.judge(look(7.6, freed=FREED)).dead
    assert not watch.judge(look(15.0, freed=FREED)).dead
    assert watch.judge(look(15.1, freed=FREED)).dead == [ROW]


def test_the_time_that_a_look_takes_counts_for_nobody(watch: Watch) -> None:
    """The rows may be as old as the question, or as new as the answer."""
    watch.judge(Look(0.0, 3.0, [ROW], FREED))
    assert not watch.judge(Look(10.4, 13.0, [ROW], FREED)).dead
    assert watch.judge(Look(15.0, 15.0, [ROW], FREED)).dead == [ROW]


def test_a_short_ttl_ends_before_a_missed_beat_does() -> None:
    watch = Watch(GAP, lambda ttl: ttl / 2 + 10)
    brief = replace(ROW, ttl=1.0)
    watch.judge(look(0.0, brief, freed=FREED))
    assert watch.judge(look(1.0, brief, freed=FREED)).dead == [brief]


def test_one_who_is_gone_and_comes_again_is_watched_anew(watch: Watch) -> None:
    watch.judge(look(0.0, freed=FREED))
    watch.judge(Look(5.0, 5.0, [], frozenset()))
    assert not watch.judge(look(7.5, freed=FREED)).dead
