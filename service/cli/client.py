"""The HTTP client behind `lethe requests`: address and key from the settings, problems as the errors they are."""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from service import errors
from service.errors import LetheError, Unauthorized, Unavailable
from service.settings import get_settings

_TIMEOUT = 30.0


@contextmanager
def open_client() -> Iterator["Client"]:
    """A client of the service at LETHE_URL with LETHE_API_KEY, else with the key that `lethe up` keeps in the home."""
    settings = get_settings()
    key = settings.api_key.get_secret_value()
    kept = settings.home / "admin.key"
    if not key and kept.is_file():
        key = kept.read_text("ascii").strip()
    if not key:
        raise Unauthorized("no API key: set LETHE_API_KEY; `lethe keys create` makes one")
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=settings.url, headers=headers, timeout=_TIMEOUT) as client:
        yield Client(client, key)


class Client:
    """JSON in and out. Raises the error class whose code the service answered with, or Unavailable."""

    def __init__(self, client: httpx.Client, key: str) -> None:
        self._client, self._key = client, key

    def token_for(self, content: str) -> str:
        """An idempotency key for this content: keyed, since a plain digest of one person's line could be guessed."""
        return hmac.digest(self._key.encode(), content.encode(), "sha256").hex()[:40]

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """GET; parameters that are None are left out."""
        kept = {name: value for name, value in params.items() if value is not None}
        return self._answer(self._send("GET", path, params=kept))

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """POST with a JSON body, or none."""
        extra: dict[str, Any] = {} if body is None else {"json": body}
        return self._answer(self._send("POST", path, headers=headers, **extra))

    def post_lines(self, path: str, lines: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST NDJSON."""
        content = {"content-type": "application/x-ndjson"} | (headers or {})
        response = self._send("POST", path, content=lines, headers=content)
        self._refuse(response)
        return response

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            where = self._client.base_url
            raise Unavailable(f"no answer from {where} ({type(error).__name__}); is `lethe up` running?") from None

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        self._refuse(response)
        answer: dict[str, Any] = response.json()
        return answer

    def _refuse(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            problem = response.json()
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"{self._client.base_url} answered {response.status_code}; is it Lethe?") from None
        raise _KINDS.get(code, LetheError)(detail)


def _kinds(kind: type[LetheError]) -> Iterator[type[LetheError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


_KINDS = {kind.code: kind for kind in _kinds(errors.LetheError)}
