"""Errors as gRPC tells them: a status, and google.rpc.Status with its details in the trailing metadata."""

import logging
from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2, status_pb2

from hector.domain.errors import HectorError
from hector.engine.defects import describe_defect
from hector.server.grpc.protobuf import from_json
from hector.server.statuses import error_details, status_of, text_of

logger = logging.getLogger(__name__)

_DETAILS = "grpc-status-details-bin"


async def fail(context: "grpc.aio.ServicerContext[Any, Any]", error: Exception) -> NoReturn:
    """End the call with it."""
    status = status_of(error)
    if status.http == 500:
        # Not `exception`, which would log the error's text, that is perhaps a user's.
        logger.error("a call failed with a defect:\n%s", describe_defect(error))
    elif status.http == 503 and isinstance(error, HectorError):
        logger.warning("a call failed: %s", error)
    code = grpc.StatusCode[status.grpc]
    rich = status_pb2.Status(code=code.value[0], message=text_of(error))
    for name, detail in error_details(error).items():
        rich.details.add().Pack(from_json(detail, getattr(error_details_pb2, name)))
    context.set_trailing_metadata(((_DETAILS, rich.SerializeToString()),))
    await context.abort(code, text_of(error))
