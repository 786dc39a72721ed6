"""Dependencies that let a route through only for the right key."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from service.auth.service import ROLES, Principal, Remembered, verify
from service.errors import Forbidden, Unauthorized

_bearer = HTTPBearer(bearerFormat="lethe_<id>_<secret>", scheme_name="ApiKey", auto_error=False)


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """The caller. Raises Unauthorized when there is no valid key."""
    if credentials is None:
        raise Unauthorized("an API key is needed; send `Authorization: Bearer lethe_...`")
    remembered: Remembered = request.app.state.remembered_keys
    principal = remembered.find(credentials.credentials)
    if principal is None:
        principal = await run_in_threadpool(verify, credentials.credentials)
        remembered.keep(credentials.credentials, principal)
    structlog.contextvars.bind_contextvars(key=principal.id)
    return principal


Caller = Annotated[Principal, Depends(authenticate)]


def require(*roles: str) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that passes callers with any of these roles; `admin` has them all. No role: any valid key."""
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise ValueError(f"unknown roles {unknown}")

    async def check(principal: Caller) -> Principal:
        if roles and not principal.has(roles):
            raise Forbidden(f"the API key needs the role {' or '.join(roles)}")
        return principal

    return check
