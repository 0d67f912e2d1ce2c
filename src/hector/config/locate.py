"""Where in its file a part of the configuration was written."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Locator:
    """All are equal: where a configuration was written is no part of what it says."""

    file: str = field(default="", compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """By dotted path, from 1."""
    moved: Mapping[str, str] = field(default_factory=dict, compare=False)
    """From a path in a part of the file to the path in the file, where the two differ."""

    def written(self, path: str) -> str:
        """The operator's own path."""
        return self.moved.get(path, path)

    def line(self, path: str) -> int | None:
        """The line of the key at this path, or of the nearest key above it that was written."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)
