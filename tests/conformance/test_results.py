"""What the runner of the conformance suites makes of their results."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import results
from tests.conformance.results import EVERY, Excused, Result, judge, read_exceptions, rows
from tests.conformance.suites import SUITES, TRANSPORTS, name_of, transport_of

DOCS = Path(__file__).parents[2] / "docs" / "conformance.md"

FAILED = Result("1.0", "must", "gRPC", "a.py::test_a", "failed", "why")
EXCUSED = Excused("1.0", "a.py::test_a", ("gRPC", "JSON-RPC"), "failed", "This", "1.0, 3", "No.")


def test_the_documented_exceptions_are_those_that_count() -> None:
    assert results.table_of_exceptions(read_exceptions()) in DOCS.read_text()


def test_a_table_of_markdown_keeps_its_cells_apart() -> None:
    assert results.table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"


@pytest.mark.parametrize("excused", read_exceptions(), ids=lambda excused: excused.test)
def test_each_exception_names_a_suite_and_its_transports_and_quotes_the_specification(
    excused: Excused,
) -> None:
    assert excused.suite in {suite.name for suite in SUITES}
    assert excused.transports
    assert set(excused.transports) <= {*TRANSPORTS, EVERY}
    assert excused.wants
    assert excused.where
    assert excused.says


def test_a_failure_counts_unless_it_is_excused_on_its_transport() -> None:
    elsewhere = replace(FAILED, transport="HTTP+JSON")
    found = [FAILED, replace(FAILED, transport="JSON-RPC"), elsewhere]
    verdict = judge(found, [EXCUSED])
    assert (verdict.unexcused, verdict.stale, verdict.good) == ([elsewhere], [], False)
    assert judge(found[:2], [EXCUSED]).good


@pytest.mark.parametrize("outcome", ["passed", "skipped"])
def test_an_exception_that_excuses_nothing_counts_too(outcome: Any) -> None:
    verdict = judge([replace(FAILED, outcome=outcome), replace(FAILED, transport="JSON-RPC")], [EXCUSED])
    assert verdict.stale == ["1.0, a.py::test_a, gRPC: has not failed"]
    assert not verdict.good


def test_exceptions_of_a_suite_that_was_not_run_are_left_alone() -> None:
    assert judge([replace(FAILED, suite="0.3", outcome="passed")], [EXCUSED]).good


def test_a_skip_may_be_excused_and_need_not() -> None:
    skipped = replace(FAILED, outcome="skipped")
    assert judge([skipped], []).good
    assert judge([skipped], [replace(EXCUSED, outcome="skipped", transports=("gRPC",))]).good


def test_results_are_counted_by_suite_level_and_transport_the_most_demanding_first() -> None:
    others = [replace(FAILED, test="b"), replace(FAILED, outcome="passed"), replace(FAILED, level="may")]
    of_another = replace(FAILED, suite="0.3", level="quality")
    must, may, quality = rows([of_another, *others, FAILED], [EXCUSED])
    assert must.cells == ("1.0", "must", "gRPC", "1", "1", "1", "0")
    assert may.cells == ("1.0", "may", "gRPC", "0", "0", "1", "0")
    assert quality.cells == ("0.3", "quality", "gRPC", "0", "1", "0", "0")


def test_a_test_that_failed_on_several_transports_is_told_once() -> None:
    elsewhere, another = replace(FAILED, transport="JSON-RPC"), replace(FAILED, test="b")
    found = results.grouped([FAILED, elsewhere, another])
    assert found == [(FAILED, ["gRPC", "JSON-RPC"]), (another, ["gRPC"])]


@pytest.mark.parametrize(
    ("test", "transport", "name"),
    [
        ("tests/compatibility/a/b.py::T::test_c[grpc]", "gRPC", "a/b.py::T::test_c"),
        ("tests/compatibility/b.py::test_c[X-1-http_json]", "HTTP+JSON", "b.py::test_c[X-1]"),
        ("tests/compatibility/jsonrpc/b.py::T::test_c", "JSON-RPC", "jsonrpc/b.py::T::test_c"),
        ("tests/compatibility/a/b.py::test_malformed_jsonrpc", EVERY, "a/b.py::test_malformed_jsonrpc"),
        ("tests/optional/quality/b.py::test_c", EVERY, "optional/quality/b.py::test_c"),
    ],
)
def test_a_tests_transport_is_told_by_its_name(test: str, transport: str, name: str) -> None:
    assert (transport_of(test), name_of(test)) == (transport, name)
