"""What callers are told where nobody knows what became of their message."""

import logging

from hector.domain.errors import OutcomeUnknownError
from hector.engine.defects import describe_defect

logger = logging.getLogger(__name__)


def defect(error: Exception) -> OutcomeUnknownError:
    """It is logged, and not told. A turn that is left behind is ended by the heartbeat."""
    logger.error("a turn met a defect:\n%s", describe_defect(error))
    return OutcomeUnknownError("internal error; the message is safe to repeat under its id")


def silence() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "the session store does not answer, so nobody knows what was stored; the message is safe to repeat"
        " under its id"
    )
