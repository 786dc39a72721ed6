"""Dependencies that let a route through only for the right key."""

from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from service.auth.service import ROLES, Principal, Remembered, verify
from service.errors import Forbidden, Unauthorized


class Guard(HTTPBearer):
    """Answers the principal of the request's key. It is a security scheme itself, so that OpenAPI shows the lock.

    Raises Unauthorized without a valid key, Forbidden without one of the roles; no roles: any valid key will do.
    """

    def __init__(self, *roles: str) -> None:
        super().__init__(bearerFormat="lethe_<id>_<secret>", scheme_name="ApiKey", auto_error=False)
        unknown = set(roles) - set(ROLES)
        if unknown:
            raise ValueError(f"unknown roles {unknown}")
        self._roles = roles

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]
        """Authenticate, then check the role."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not text:
            raise Unauthorized("an API key is needed; send `Authorization: Bearer lethe_...`")
        principal = await _find(request.app.state.remembered_keys, text.strip())
        structlog.contextvars.bind_contextvars(key=principal.id)
        if self._roles and not principal.has(self._roles):
            raise Forbidden(f"the API key needs the role {' or '.join(self._roles)}")
        return principal


async def _find(remembered: Remembered, text: str) -> Principal:
    principal = remembered.find(text)
    if principal is None:
        principal = await run_in_threadpool(verify, text)
        remembered.keep(text, principal)
    return principal


def require(*roles: str) -> Guard:
    """A dependency that passes callers with any of these roles; `admin` has them all. No role: any valid key."""
    return Guard(*roles)


Caller = Annotated[Principal, Depends(require())]
