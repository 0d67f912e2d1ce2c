"""Every error that Hector raises, by who must act.

HectorError
├── ConfigError                 the operator: the configuration is wrong
├── CallerError                 the caller: this request is wrong
│   ├── InvalidError            a field has a bad value
│   │   └── TooLargeError       ... is too long or too big
│   ├── NotFoundError           nothing has that name
│   ├── UnauthenticatedError    who is calling?
│   ├── ForbiddenError          not for this caller
│   ├── ConflictError           this message id was used for another message
│   ├── NotPausedError          the named task does not wait for input
│   ├── BusyError               on_busy: reject, and another turn runs
│   ├── QueueFullError          as many messages wait as may
│   └── WaitedTooLongError      the answer to a paused task waited longer than it may
├── ModelError                  the provider, or the operator's key
│   ├── ModelAuthError          the provider refuses the key
│   ├── ModelRateLimitError     too many requests; knows when to retry
│   ├── ModelUnreachableError   no answer: connection or time-out
│   ├── ModelRequestError       the provider refuses this request
│   │   └── ContextTooLongError ... because it is longer than the model's window
│   └── ModelUnavailableError   the model cannot be started or loaded
├── ToolError                   the model: it is told, and the turn goes on
├── InputRequiredError          the user: the turn pauses until they answer
└── StorageError                the operator of the database
    ├── StoreOpenError          the session store cannot be opened
    │   └── StoreUnreachableError ... now: its server does not answer, or starts up
    │       └── ServerFullError ... it takes no more connections
    ├── StoreUnavailableError   for now; the request is safe to repeat
    ├── OutcomeUnknownError     a commit got no answer; safe to repeat by message id
    └── LeaseLostError          another replica has this turn, or nobody: its session is gone
"""

from collections.abc import Sequence
from dataclasses import dataclass


class HectorError(Exception):
    """Base of all; its text is one sentence in lower case that is fit for a caller's eyes."""

    retryable = False
    """The same request may succeed later, unchanged."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a configuration."""

    path: str
    """As the operator wrote it: `agents.helper.llm`; '' for the whole file."""
    text: str
    """What was wanted, what was found, what would work."""
    file: str = ""
    line: int | None = None
    """From 1."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (place, self.path, self.text) if part)


class ConfigError(HectorError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class CallerError(HectorError):
    """The request cannot be served as it is; `field` names the part at fault where one is."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidError(CallerError):
    def __init__(self, field: str, wanted: str) -> None:
        super().__init__(f"{field}: {wanted}", field=field)


class TooLargeError(InvalidError):
    pass


class NotFoundError(CallerError):
    def __init__(self, kind: str, name: str, *, known: Sequence[str] = ()) -> None:
        hint = f" (known: {', '.join(sorted(known))})" if known else ""
        super().__init__(f"{kind} {name!r} not found{hint}", field=kind)
        self.kind, self.name = kind, name


class UnauthenticatedError(CallerError):
    pass


class ForbiddenError(CallerError):
    pass


class ConflictError(CallerError):
    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"message id {message_id!r} was used in this session for a message with other content;"
            " repeat that message unchanged, or send this one under a new id",
            field="message_id",
        )
        self.message_id = message_id


class NotPausedError(CallerError):
    def __init__(self, turn_id: str, state: str) -> None:
        super().__init__(
            f"task {turn_id!r} is {state} and takes no further message;"
            " send the message without a task id to go on in its session",
            field="task_id",
        )
        self.turn_id, self.state = turn_id, state


class BusyError(CallerError):
    retryable = True

    def __init__(self, turn_id: str | None) -> None:
        busy = f"task {turn_id!r}" if turn_id else "a message that waits"
        super().__init__(
            f"the session is busy with {busy} and its agent does not queue (turns.on_busy: reject);"
            " send the message again when that task has ended"
        )
        self.turn_id = turn_id
        """The running turn; None between two turns."""


class QueueFullError(CallerError):
    retryable = True

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"{waiting} messages already wait in this session, which is its limit (turns.max_waiting);"
            " send the message again later"
        )
        self.waiting = waiting


class WaitedTooLongError(CallerError):
    retryable = True

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            "the session was busy for longer than turns.max_wait allows, so the message did not reach task"
            f" {turn_id!r}; send the message again"
        )
        self.turn_id = turn_id


class ModelError(HectorError):
    """A model gave no usable answer. `reason` is what the failed turn records."""

    reason = "model_error"


class ModelAuthError(ModelError):
    reason = "model_auth"


class ModelRateLimitError(ModelError):
    reason = "model_rate_limit"
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, as the provider said; None if it did not."""


class ModelUnreachableError(ModelError):
    reason = "model_unreachable"
    retryable = True


class ModelRequestError(ModelError):
    reason = "model_refused"


class ContextTooLongError(ModelRequestError):
    reason = "context_too_long"


class ModelUnavailableError(ModelError):
    reason = "model_unavailable"


class GaveWayError(ModelError):
    """A request that may wait was broken off for one that may not; nothing is wrong with the model."""

    retryable = True


class ToolError(HectorError):
    """A tool raises it to tell the model what went wrong; its text is the tool's result."""


class InputRequiredError(HectorError):
    """A tool raises it to ask the user; the turn pauses, and its text is the question."""

    def __init__(self, question: str) -> None:
        super().__init__(question)
        self.question = question


class StorageError(HectorError):
    pass


class StoreOpenError(StorageError):
    def __init__(self, store: str, why: str) -> None:
        super().__init__(f"failed to connect to session store {store!r}: {why}")
        self.store = store


class StoreUnreachableError(StoreOpenError):
    retryable = True


class ServerFullError(StoreUnreachableError):
    pass


class StoreUnavailableError(StorageError):
    retryable = True


class OutcomeUnknownError(StorageError):
    retryable = True


class LeaseLostError(StorageError):
    def __init__(self, turn_id: str) -> None:
        super().__init__(f"this replica no longer holds the lease of turn {turn_id!r}")
        self.turn_id = turn_id
