"""Outgoing callbacks in the Standard Webhooks form (webhook-id, webhook-timestamp, webhook-signature v1).

The body names the request by id and status, never a person. A callback address is resolved first and refused when it
points into a private network, so that a request cannot make the service knock on its own doors (SSRF).
"""

import base64
import ipaddress
import json
import socket
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from service.errors import Invalid, Unavailable
from service.settings import get_settings
from service.subjects import vault


def signing_secret() -> str:
    """The `whsec_` secret that receivers verify with; derived from the master key, so it survives restarts."""
    return "whsec_" + base64.b64encode(vault.derive_key("webhooks")).decode()


def body_of(request_id: str, status: str, external_id: str | None, now: datetime) -> bytes:
    """The JSON body: type, timestamp, data."""
    data = {"id": request_id, "status": status, "external_id": external_id}
    return json.dumps({"type": f"deletion_request.{status}", "timestamp": now.isoformat(), "data": data}).encode()


def check_address(url: str) -> None:
    """Raises Invalid when the URL is not HTTP(S) or its host resolves to an address that is not public."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid("callback_url must be an absolute http or https URL")
    if get_settings().webhooks.allow_private:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable("the host of callback_url does not resolve") from error
    if any(not ipaddress.ip_address(entry[4][0]).is_global for entry in found):
        raise Invalid("callback_url points into a private network")


def post(url: str, message_id: str, body: bytes, now: datetime) -> None:
    """Send once. Raises Unavailable on anything but 2xx."""
    import httpx
    from standardwebhooks.webhooks import Webhook

    check_address(url)
    signature = Webhook(signing_secret()).sign(message_id, now, body.decode())
    headers: dict[str, Any] = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    try:
        timeout = get_settings().webhooks.timeout_seconds
        answer = httpx.post(url, content=body, headers=headers, timeout=timeout, follow_redirects=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"the callback could not be delivered: {type(error).__name__}") from error
    if not answer.is_success:
        raise Unavailable(f"the callback answered {answer.status_code}")
