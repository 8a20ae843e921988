"""One form for every error: problem details as of RFC 9457, also for what the framework itself refuses."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.api.errors import AuthenticationError, CommitRejectedError, GatewayServiceError, InvalidRequestError

MEDIA_TYPE = "application/problem+json"
MAXIMUM_FAULTS = 20
RETRY_AFTER_SECONDS = 2

logger = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error of the application in this form."""
    app.add_exception_handler(GatewayServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Exception, _defect)


def problem(
    status: int, code: str, title: str, detail: str = "", *, headers: dict[str, str] | None = None, **more: object
) -> JSONResponse:
    """Give a response in this form; `more` are members of their own."""
    content: dict[str, Any] = {"type": f"urn:kvr:problem:{code}", "title": title, "status": status, "code": code}
    if detail:
        content["detail"] = detail
    content.update({name: value for name, value in more.items() if value is not None})
    return JSONResponse(content, status, media_type=MEDIA_TYPE, headers=headers)


async def _service_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, GatewayServiceError):
        raise error
    headers = {}
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    facts: dict[str, object] = {"tx_id": error.tx_id}
    if isinstance(error, CommitRejectedError):
        facts |= {"validation_code": error.validation_code, "block_number": error.block_number}
    return problem(error.status, error.code, error.title, error.detail, headers=headers, **facts)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    """Name the fields and what is wrong with them; what they held is not repeated."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        {"where": ".".join(str(part) for part in fault["loc"]), "reason": fault["msg"]}
        for fault in error.errors()[:MAXIMUM_FAULTS]
    ]
    return problem(400, InvalidRequestError.code, InvalidRequestError.title, errors=faults)


async def _framework_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, phrase, headers=dict(error.headers or {}))


async def _defect(_request: Request, error: Exception) -> JSONResponse:
    logger.error("request_failed", extra={"error": type(error).__name__})
    return problem(500, GatewayServiceError.code, GatewayServiceError.title)
