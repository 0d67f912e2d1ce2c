"""What the agent of conformance.yaml can do beside talking."""

from hector import InputRequiredError, tool


@tool(idempotent=True)
def ask(question: str) -> str:
    """Ask the user a question, and wait for the answer."""
    raise InputRequiredError(question)
