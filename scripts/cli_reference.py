"""Writes what the commands say of themselves into docs/cli.md; --check only tells whether that is needed."""

import re
import sys
from pathlib import Path
from typing import Any

import typer

from hector.cli.main import app

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
BLOCK = re.compile(r"(<!-- help: (?P<command>[a-z ]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def help_texts() -> dict[str, str]:
    """By command: `hector`, `hector call`, `hector sessions list`, ..."""
    return dict(_texts(typer.main.get_command(app), None, "hector"))


def _texts(command: Any, parent: Any, name: str) -> list[tuple[str, str]]:
    # The width is fixed, so that the text does not depend on the terminal of whoever makes it.
    context = command.make_context(
        name, [], parent, resilient_parsing=True, terminal_width=100, max_content_width=100
    )
    texts = [(context.command_path, f"{command.get_help(context)}\n")]
    for child, subcommand in getattr(command, "commands", {}).items():
        texts += _texts(subcommand, context, child)
    return texts


def filled(document: str) -> str:
    """The document with each block as it should be. Raises `ValueError` if blocks and commands differ."""
    texts = help_texts()
    named = [match["command"] for match in BLOCK.finditer(document)]
    if sorted(named) != sorted(texts):
        raise ValueError(f"the document has blocks for {sorted(named)}, and the commands are {sorted(texts)}")
    return BLOCK.sub(lambda match: f"{match[1]}```text\n{texts[match['command']]}```\n{match[3]}", document)


def main() -> int:
    document = REFERENCE.read_text()
    if "--check" in sys.argv[1:]:
        return 0 if filled(document) == document else 1
    REFERENCE.write_text(filled(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
