"""`python -m tests.conformance TCK`: run A2A's conformance suites against `hector serve`.

TCK is a clone of a2a-tck with the branch 1.0-dev and the tag 0.3.0.beta4, or the files of one of them.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conformance import results, suites
from tests.conformance.results import HEADINGS, Excused, Result, Verdict
from tests.conformance.server import ServerError, served
from tests.conformance.suites import KEPT, SUITES, Checkout, SuiteError

_LOG, _SERVER_LOG = KEPT / "suites.log", KEPT / "server.log"

# Progress and the table are for people; with --json or --markdown standard output is for what was asked for.
_console = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("tck", type=Path, metavar="TCK", help="where the suites are")
    parser.add_argument(
        "--suite", choices=[suite.name for suite in SUITES], help="only the one for this version"
    )
    parser.add_argument("--json", action="store_true", help="print all results as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/conformance.md")
    asked = parser.parse_args()
    # As Ctrl-C, after which the server is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        checkouts = [each for each in suites.find(asked.tck) if asked.suite in (None, each.suite.name)]
        found = _run(checkouts)
    except (SuiteError, ServerError) as error:
        _console.print(f"stopped: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    exceptions = results.read_exceptions()
    verdict = results.judge(found, exceptions)
    if asked.json:
        print(json.dumps(_as_json(checkouts, found, exceptions, verdict), indent=2))
    elif asked.markdown:
        print(_as_markdown(checkouts, found, exceptions))
    _show(found, exceptions, verdict)
    return 0 if verdict.good else 1


def _run(checkouts: Sequence[Checkout]) -> Sequence[Result]:
    KEPT.mkdir(parents=True, exist_ok=True)
    python = suites.make_environment()
    _LOG.unlink(missing_ok=True)
    found: list[Result] = []
    with served(_SERVER_LOG) as url, _console.status("starting") as status:
        for checkout in checkouts:
            where = f" ({checkout.commit})" if checkout.commit else ""
            _console.print(f"a2a-tck {checkout.suite.ref}{where} against {url}", markup=False)
            found += suites.run(checkout, python, url, _LOG, status.update)
    return found


def _show(found: Sequence[Result], exceptions: Sequence[Excused], verdict: Verdict) -> None:
    shown = Table(*HEADINGS)
    for row in results.rows(found, exceptions):
        shown.add_row(*row.cells, style="red" if row.failed else None)
    _console.print(shown)
    for result, transports in results.grouped(verdict.unexcused):
        place = f"{result.suite} {result.level}, {', '.join(transports)}: {result.test}"
        why = result.why.partition("\n")[0][:500]
        _console.print(f"failed: {place}\n    {why}", style="red", markup=False)
    for each in verdict.stale:
        _console.print(f"an exception that is not needed: {each}", style="red", markup=False)
    if not verdict.good:
        _console.print(f"What the suites and the server said is in {_LOG} and {_SERVER_LOG}.", markup=False)


def _as_json(
    checkouts: Sequence[Checkout], found: Sequence[Result], exceptions: Sequence[Excused], verdict: Verdict
) -> object:
    return {
        "suites": [
            {"name": each.suite.name, "ref": each.suite.ref, "commit": each.commit} for each in checkouts
        ],
        "good": verdict.good,
        "table": [asdict(row) for row in results.rows(found, exceptions)],
        "unexcused": [asdict(result) for result in verdict.unexcused],
        "stale": list(verdict.stale),
        "results": [asdict(result) for result in found],
    }


def _as_markdown(
    checkouts: Sequence[Checkout], found: Sequence[Result], exceptions: Sequence[Excused]
) -> str:
    of = "\n".join(f"- {each.suite.name}: `{each.suite.ref}`, {each.commit}" for each in checkouts)
    counted = results.table(HEADINGS, (row.cells for row in results.rows(found, exceptions)))
    return f"{of}\n\n{counted}\n\n{results.table_of_exceptions(exceptions)}"


if __name__ == "__main__":
    sys.exit(main())
