"""How a download is told where no bar can be drawn."""

import pytest

from hector.cli.models import PercentLines


def test_a_line_comes_for_each_source_and_each_few_percent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PercentLines()
    for done in (0, 4, 5, 6, 17):
        progress(done, 100, "one")
    for done in (0, 60, 100):
        progress(done, 100, "two")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["from one", "5 %", "15 %", "from two", "60 %", "100 %"]
