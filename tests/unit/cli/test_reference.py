"""docs/cli.md says of each command what the command says of itself."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_reference_holds_the_help_of_every_command() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "cli_reference.py"))
    document = (ROOT / "docs" / "cli.md").read_text()
    assert script["filled"](document) == document, "run scripts/cli_reference.py"
