"""An agent: a name and its parts."""

from collections.abc import Mapping
from dataclasses import dataclass

from hector.domain.memory import TokenCounter, WorkingMemory
from hector.domain.models import Model
from hector.domain.profiles import Profile
from hector.domain.summaries import Summarizer
from hector.domain.tools import Tool
from hector.domain.turns import TurnSettings


@dataclass(frozen=True, slots=True)
class Agent:
    name: str
    instructions: str
    model: Model
    memory: WorkingMemory
    tokens: TokenCounter
    tools: Mapping[str, Tool]
    """By the name that the model calls."""
    turns: TurnSettings
    session_store: str
    """The store's name; '' is the private one in memory."""
    title: str = ""
    """The YAML's `name`, for people."""
    description: str = ""
    profile: Profile = Profile()
    summarizer: Summarizer | None = None
    """Where its memory has a compaction."""
