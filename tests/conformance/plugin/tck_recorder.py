"""A plugin of pytest that tells what becomes of each test as it happens, a line of JSON each, into a pipe.

It runs in the suites' own environment, and so imports nothing of ours.
"""

import json
import os
from typing import Any

import pytest

_PIPE = os.fdopen(int(os.environ["TCK_RECORD"]), "w")


def pytest_collection_finish(session: pytest.Session) -> None:
    _tell(collected=len(session.items))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:
        # By far most keywords are no marks; whoever reads this knows those that matter.
        _tell(test=report.nodeid, outcome=_outcome(report), why=_why(report), marks=list(report.keywords))


def _outcome(report: pytest.TestReport) -> str:
    """One that was expected to fail has failed all the same: what should be, and need not, is treated so."""
    if report.skipped:
        return "failed" if hasattr(report, "wasxfail") else "skipped"
    return str(report.outcome)


def _why(report: pytest.TestReport) -> str:
    if expected := getattr(report, "wasxfail", ""):
        return str(expected)
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message) if crash else report.longreprtext


def _tell(**said: Any) -> None:
    _PIPE.write(json.dumps(said) + "\n")
    _PIPE.flush()
