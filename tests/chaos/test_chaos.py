"""Some tens of faults in each run of the tests; any number by `make kill-suite KILLS=1000`."""

import random
import shutil
import subprocess
import sys

import pytest

from tests.chaos.faults import plan, weights
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.stores import DATABASES, DatabaseName
from tests.chaos.suite import Settings, run

# On a server many of the faults are outages, which take longer than a death.
FAULTS: dict[DatabaseName, int] = {"sqlite": 50, "postgres": 30, "mysql": 30}
SAFEGUARDS: list[tuple[DatabaseName, str]] = [
    *(
        (database, safeguard)
        for database in DATABASES
        for safeguard in ("guard", "begin", "lease", "places", "calls", "results")
    ),
    ("postgres", "commit"),
    ("mysql", "commit"),
]


def _seed() -> int:
    # Another one each time: so many runs see more than one run does.
    return random.SystemRandom().randrange(10**6)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", DATABASES)
async def test_nothing_is_lost_in_some_tens_of_faults(database: DatabaseName) -> None:
    wanted = FAULTS[database]
    report = await run(Settings(wanted, _seed(), database=database))
    seed = f"seed {report.settings.seed}, files in {report.folder}"
    assert not report.anomalies, "\n".join([seed, *report.anomalies])
    assert report.faults.total() == wanted
    assert report.states["completed"] > 30


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("database", "safeguard"), SAFEGUARDS)
async def test_without_a_safeguard_damage_is_found(database: DatabaseName, safeguard: str) -> None:
    report = await run(Settings(400, _seed(), safeguard, database))
    assert report.states["completed"], "the servers ran"
    assert report.anomalies
    assert report.folder
    shutil.rmtree(report.folder)


@pytest.mark.parametrize("safeguard", SABOTAGES)
def test_what_is_taken_out_is_there(safeguard: str) -> None:
    run = [sys.executable, "-m", "tests.chaos.sabotage", safeguard, "version"]
    ended = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("hector ")


@pytest.mark.parametrize("database", DATABASES)
def test_a_seed_names_the_faults(database: DatabaseName) -> None:
    assert list(plan(database, 50, seed=1)) == list(plan(database, 50, seed=1))
    assert list(plan(database, 50, seed=1)) != list(plan(database, 50, seed=2))
    # More of them begin with the same.
    assert list(plan(database, 60, seed=1))[:50] == list(plan(database, 50, seed=1))


@pytest.mark.parametrize("database", DATABASES)
def test_every_kind_of_fault_is_made_sooner_or_later(database: DatabaseName) -> None:
    assert {fault.kind for fault in plan(database, 500, seed=1)} == set(weights(database))
