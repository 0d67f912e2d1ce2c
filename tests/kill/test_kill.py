"""Fifty faults in each run of the tests; any number by `make kill-suite KILLS=1000`."""

import random
import shutil

import pytest

from tests.kill.suite import Settings, run


def _seed() -> int:
    # Another one each time: so many runs see more than one run does.
    return random.SystemRandom().randrange(10**6)


@pytest.mark.timeout(300)
async def test_nothing_is_lost_in_fifty_faults() -> None:
    report = await run(Settings(faults=50, seed=_seed()))
    assert not report.anomalies, f"seed {report.settings.seed}, files in {report.folder}"
    assert report.faults.total() == 50
    assert report.faults["kill"] > 5
    assert report.states["completed"] > 50


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("safeguard", ["guard", "begin"])
async def test_without_a_safeguard_damage_is_found(safeguard: str) -> None:
    report = await run(Settings(faults=400, seed=_seed(), without=safeguard))
    assert report.anomalies
    assert report.folder
    shutil.rmtree(report.folder)
