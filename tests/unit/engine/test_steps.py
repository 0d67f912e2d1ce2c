import pytest

from hector.domain.messages import Message, ToolMessage
from hector.engine.steps import AskModel, Finish, Pause, RunTools, Step, in_call_order, next_step
from tests.unit.engine.fakes import asking, call, result, said, user

A, B, C = call("a", id="a"), call("b", id="b"), call("c", id="c")
DONE_A = ToolMessage(result("1", "a", id="a"))
DONE_B = ToolMessage(result("2", "b", id="b"))
DONE_C = ToolMessage(result("3", "c", id="c"))
ASKED_A = ToolMessage(result("asked", "a", id="a", question="which?"))
ASKED_B = ToolMessage(result("asked", "b", id="b", question="when?"))


@pytest.mark.parametrize(
    ("own", "step"),
    [
        pytest.param([user("hi")], AskModel(), id="a question goes to the model"),
        pytest.param([user("hi"), said("hello")], Finish(answered=True), id="an answer is the end"),
        pytest.param([user("hi"), asking(A)], RunTools((A,)), id="a call is run"),
        pytest.param([user("hi"), asking(A, B)], RunTools((A, B)), id="calls are run together"),
        pytest.param([user("hi"), asking(A), DONE_A], AskModel(), id="results go to the model"),
        pytest.param(
            [user("hi"), asking(A, B, C), DONE_B], RunTools((A, C)), id="only calls without a result are run"
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, asking(B)], RunTools((B,)), id="a second step's calls are run"
        ),
        pytest.param([user("hi"), asking(A), ASKED_A], Pause("which?"), id="a question is the user's"),
        pytest.param(
            [user("hi"), asking(A, B), ASKED_A], RunTools((B,)), id="a question waits for the other calls"
        ),
        pytest.param(
            [user("hi"), asking(A, B, C), ASKED_B, DONE_C, ASKED_A],
            Pause("which?\nwhen?"),
            id="questions are asked together, in the order of the calls",
        ),
        pytest.param(
            [user("hi"), asking(A), ASKED_A, said("which?"), user("this"), asking(B), DONE_B],
            AskModel(),
            id="a question that was answered is not asked again",
        ),
        pytest.param(
            [user("hi"), asking(C), DONE_C, asking(B), DONE_B, asking(A), ASKED_A],
            Pause("which?"),
            id="the answer to a question starts the count anew, so none is too late",
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, said("which?"), user("this")],
            AskModel(),
            id="a resumed turn goes to the model",
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, asking(B), DONE_B],
            AskModel(),
            id="one model call is left of three",
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, asking(B), DONE_B, asking(C)],
            Finish(answered=False),
            id="calls by the last allowed model call are not run",
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, asking(B), DONE_B, said("hello")],
            Finish(answered=True),
            id="the last allowed model call may answer",
        ),
        pytest.param(
            [user("hi"), asking(A), DONE_A, asking(B), DONE_B, said("which?"), user("this"), asking(C)],
            RunTools((C,)),
            id="the user's answer starts the count anew",
        ),
    ],
)
def test_next_step(own: list[Message], step: Step) -> None:
    assert next_step(own, max_steps=3) == step


def test_results_are_put_in_the_order_of_their_calls() -> None:
    own: list[Message] = [user("hi"), asking(A, B), DONE_B, DONE_A, asking(C), DONE_C]
    assert in_call_order(own) == [user("hi"), asking(A, B), DONE_A, DONE_B, asking(C), DONE_C]


def test_a_result_stands_right_after_its_call_even_if_the_user_spoke_in_between() -> None:
    own: list[Message] = [user("hi"), asking(A), user("well?"), DONE_A]
    assert in_call_order(own) == [user("hi"), asking(A), DONE_A, user("well?")]
