"""What becomes of an error that ends a command: lines for people, and an exit status."""

from hector.domain.errors import ConfigError, HectorError, InvalidError


def explained(error: HectorError) -> tuple[int, list[str]]:
    """The exit status, and lines for standard error."""
    if isinstance(error, ConfigError):
        return 2, [str(problem) for problem in error.problems]
    return 2 if isinstance(error, InvalidError) else 1, [f"Error: {error}"]
