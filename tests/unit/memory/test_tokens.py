import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hector.domain.memory import TokenCounter
from hector.domain.tokens import PIECE
from hector.memory.tokens import BpeCounter, LearntCounter, counter_for

O200K, CL100K = BpeCounter("o200k_base"), BpeCounter("cl100k_base")
GUESS = LearntCounter(O200K, 120)

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# Texts that tokenizers merge a lot, which random characters rarely are.
wordy = st.lists(
    st.sampled_from(["hello", " world", "  ", "\n\n", "it's", "é", "🚀", "👨‍👩‍👧", "日本", "==", "1234", "a"])
).map("".join)


@pytest.mark.parametrize(
    ("model", "counter"),
    [
        ("gpt-4o", O200K),
        ("gpt-4o-mini-2024-07-18", O200K),
        ("openai:gpt-4.1-nano", O200K),
        ("openrouter:openai/gpt-5.1", O200K),
        ("GPT-5", O200K),
        ("gpt-10", O200K),
        ("o1", O200K),
        ("o4-mini", O200K),
        ("chatgpt-4o-latest", O200K),
        ("gpt-oss:20b", O200K),
        ("ft:gpt-4o-mini:org::id", O200K),
        ("gpt-4", CL100K),
        ("gpt-4-turbo", CL100K),
        ("gpt-3.5-turbo", CL100K),
        ("gpt-35-turbo", CL100K),
        ("qwen2.5-coder:0.5b", GUESS),
        ("claude-sonnet-5", GUESS),
        ("olmo-2", GUESS),
        ("", GUESS),
    ],
)
def test_a_model_is_counted_by_its_own_tokenizer_or_by_a_guess(model: str, counter: TokenCounter) -> None:
    assert counter_for(model) == counter


@pytest.mark.parametrize(
    ("counter", "text", "tokens"),
    [
        (O200K, "", 0),
        (O200K, "hello world", 2),
        (O200K, "antidisestablishmentarianism", 6),
        (O200K, "お誕生日おめでとう", 8),
        (O200K, "2 + 2 = 4", 7),
        (CL100K, "antidisestablishmentarianism", 6),
        (CL100K, "お誕生日おめでとう", 9),
        (CL100K, "2 + 2 = 4", 7),
        (GUESS, "", 0),
        (GUESS, "hello world", 3),
        (GUESS, "antidisestablishmentarianism", 8),
    ],
)
def test_counts(counter: TokenCounter, text: str, tokens: int) -> None:
    assert counter.count(text) == tokens


@pytest.mark.parametrize("counter", [O200K, CL100K, GUESS])
@given(text=storable | wordy, tokens=st.integers(-1, 60))
@settings(max_examples=60, deadline=None)
def test_a_cut_is_a_start_of_the_text_that_fits(counter: TokenCounter, text: str, tokens: int) -> None:
    start = counter.cut(text, tokens)
    assert text.startswith(start)
    assert counter.count(start) <= max(tokens, 0)
    if counter.count(text) <= tokens:
        assert start == text


def test_a_cut_is_as_long_as_its_tokens_allow() -> None:
    text = "one two three four five"
    assert [O200K.cut(text, tokens) for tokens in range(7)] == [
        "", "one", "one two", "one two three", "one two three four", text, text,
    ]  # fmt: skip


def test_a_cut_ends_before_a_character_that_does_not_fit_wholly() -> None:
    family = "👨‍👩‍👧‍👦"
    starts = {O200K.cut(family, tokens) for tokens in range(12)}
    assert starts == {"", "👨", "👨‍", "👨‍👩", "👨‍👩‍", "👨‍👩‍👧", "👨‍👩‍👧‍", family}


def test_a_long_text_is_cut_across_the_pieces_that_it_is_counted_in() -> None:
    text = "hello world and others " * 10_000
    start = O200K.cut(text, 30_000)
    assert text.startswith(start)
    assert O200K.count(start) == 30_000


def test_a_cut_keeps_to_its_tokens_where_two_pieces_take_more_together_than_apart() -> None:
    first = ("1\n" * PIECE)[: PIECE - 3] + "Bab"
    assert O200K.count(first + "it's") > O200K.count(first) + O200K.count("it's")
    tokens = O200K.count(first) + 1
    assert O200K.count(O200K.cut(first + "it's on", tokens)) <= tokens


@pytest.mark.parametrize("letter", ["a", " ", "\n", "=", "的", "😀", "ab", "\u0301"])
def test_a_megabyte_of_one_letter_is_counted(letter: str) -> None:
    # A tokenizer that is quadratic in this takes hours, which the limit for every test would end.
    assert O200K.count(letter * (1_000_000 // len(letter))) > 0


def test_the_guess_rounds_up_and_its_cuts_keep_to_it() -> None:
    words = random.Random(1).choices(["hello", "world", "é", "🚀"], k=200)
    text = " ".join(words)
    for tokens in range(1, 60):
        assert GUESS.count(GUESS.cut(text, tokens)) <= tokens


def test_the_factor_is_what_is_reported_first_and_then_follows() -> None:
    counter = LearntCounter(O200K)
    assert counter.percent == 120
    counter.learn(counted=1000, reported=1500)
    assert counter.percent == 150
    counter.learn(counted=1000, reported=1100)
    assert counter.percent == 140
    for _ in range(30):
        counter.learn(counted=1000, reported=1100)
    assert counter.percent == 110


@pytest.mark.parametrize("reported", [1, 790, 3010])
def test_what_cannot_be_of_the_whole_request_is_not_believed(reported: int) -> None:
    counter = LearntCounter(O200K)
    counter.learn(counted=1000, reported=reported)
    assert counter.percent == 120
