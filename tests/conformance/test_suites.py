"""Suites are found, run, and heard out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import suites
from tests.conformance.results import Result
from tests.conformance.suites import Checkout, Run, Suite, SuiteError

TESTS = """\
import pytest

must = pytest.mark.must

@must
@pytest.mark.parametrize("transport", ["grpc", "http_json"])
def test_passes(transport): pass

@must
def test_fails(): assert 1 == 2

@must
def test_is_skipped(): pytest.skip("no streams here")

@pytest.mark.should
class TestShould:
    def test_should(self): pytest.xfail("should be so")

@pytest.fixture
def broken(): raise RuntimeError("no server")

@must
def test_breaks(broken): pass
"""


def suite() -> Suite:
    return Suite(
        "1.0",
        "1.0-dev",
        "tests/compatibility",
        lambda url: [Run("all", ("tests/compatibility", f"--rootdir={url}"))],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "suite"
    (place / "tests" / "compatibility").mkdir(parents=True)
    (place / "tests" / "compatibility" / "test_some.py").write_text(TESTS)
    (place / "pytest.ini").write_text("[pytest]\nmarkers =\n  must: x\n  should: x\n")
    return place


def git(place: Path, *arguments: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *named, "-C", place, *arguments], check=True, capture_output=True)


def test_what_becomes_of_each_test_is_told_with_its_level_and_transport(folder: Path) -> None:
    told: list[str] = []
    checkout = Checkout(suite(), folder, "")
    log = folder / "log"
    found = list(suites.run(checkout, Path(sys.executable), str(folder), log, told.append))
    name = "test_some.py::"
    assert [(each.level, each.transport, each.test, each.outcome) for each in found] == [
        ("must", "gRPC", f"{name}test_passes", "passed"),
        ("must", "HTTP+JSON", f"{name}test_passes", "passed"),
        ("must", "every", f"{name}test_fails", "failed"),
        ("must", "every", f"{name}test_is_skipped", "skipped"),
        ("should", "every", f"{name}TestShould::test_should", "failed"),
        ("must", "every", f"{name}test_breaks", "failed"),
    ]
    whys = {each.test.removeprefix(name): each.why for each in found}
    assert whys["test_fails"] == "assert 1 == 2"
    assert "no streams here" in whys["test_is_skipped"]
    assert "should be so" in whys["TestShould::test_should"]
    assert "no server" in whys["test_breaks"]
    assert told[-1] == "1.0: all, 6 of 6 tests"


def test_a_run_that_does_not_come_to_its_end_is_no_result(folder: Path) -> None:
    tests = folder / "tests" / "compatibility" / "test_some.py"
    tests.write_text("import os\ndef test_one(): pass\ndef test_two(): os._exit(0)\n")
    found: list[Result] = []
    with pytest.raises(SuiteError, match="1 of 2 tests were run"):
        found.extend(
            suites.run(
                Checkout(suite(), folder, ""), Path(sys.executable), str(folder), folder / "log", print
            )
        )


def test_a_folder_of_tests_is_a_suite(folder: Path) -> None:
    (found,) = suites.find(folder)
    assert (found.suite.name, found.folder, found.commit) == ("1.0", folder, "")


@pytest.mark.parametrize("cloned", [False, True])
def test_a_clone_has_those_suites_whose_refs_it_has(
    folder: Path, tmp_path: Path, cloned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "KEPT", tmp_path / "kept")
    git(folder, "init", "-q", "-b", "1.0-dev")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    git(folder, "tag", "0.3.0.beta4")
    git(folder, "checkout", "-q", "-b", "other")
    if cloned:
        git(tmp_path, "clone", "-q", "--bare", str(folder), "clone")
        folder = tmp_path / "clone"
    found = suites.find(folder)
    assert [each.suite.name for each in found] == ["1.0", "0.3"]
    assert all((each.folder / "tests" / "compatibility" / "test_some.py").exists() for each in found)
    assert " of 20" in found[0].commit


@pytest.mark.parametrize("there", [True, False])
def test_what_is_no_suite_is_refused(tmp_path: Path, there: bool) -> None:
    with pytest.raises(SuiteError, match="no clone of a2a-tck" if there else "no folder"):
        suites.find(tmp_path if there else tmp_path / "none")
