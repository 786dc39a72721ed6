"""Outgoing callbacks in the Standard Webhooks form (webhook-id, webhook-timestamp, webhook-signature v1).

The body names the request by id and status, never a person. A callback's host is resolved once; its addresses are
refused when one points into a private network, and are what is connected to, so that neither a request nor a name that
answers differently the second time can make the service knock on its own doors (SSRF, DNS rebinding).
"""

import asyncio
import base64
import ipaddress
import json
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

from service.errors import Invalid, Unavailable
from service.settings import get_settings
from service.subjects import vault

if TYPE_CHECKING:
    import httpx


def signing_secret() -> str:
    """The `whsec_` secret that receivers verify with; derived from the master key, so it survives restarts."""
    return "whsec_" + base64.b64encode(vault.derive_key("webhooks")).decode()


def body_of(
    request_id: str,
    status: str,
    external_id: str | None,
    now: datetime,
    waiting: Sequence[Mapping[str, str]] = (),
) -> bytes:
    """The JSON body: type, timestamp, data. `waiting`: the jobs in which a reviewer has to decide, where it is that."""
    data: dict[str, Any] = {"id": request_id, "status": status, "external_id": external_id}
    if waiting:
        data |= {"waits_for": "reviewer", "jobs": [dict(job) for job in waiting]}
    kind = f"deletion_request.{'waiting' if waiting else status}"
    return json.dumps({"type": kind, "timestamp": now.isoformat(), "data": data}).encode()


def addresses_of(url: "httpx.URL", seconds: float) -> list[str]:
    """The IP addresses of the URL's host, resolved now and once: whoever connects takes these and no others.

    Raises Invalid when the URL is not HTTP(S) or one of the addresses is not public, Unavailable when there is none or
    when the resolver takes longer than `seconds`.
    """
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https") or not host:
        raise Invalid("callback_url must be an absolute http or https URL")
    try:
        found = _resolved(host, url.port or 443, seconds)
    except TimeoutError as error:
        raise Unavailable("the host of callback_url did not resolve in time") from error
    except (OSError, UnicodeError) as error:  # the latter for a label that DNS could not carry
        raise Unavailable("the host of callback_url does not resolve") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    private = any(not ipaddress.ip_address(address).is_global for address in addresses)
    if private and not get_settings().webhooks.allow_private:
        raise Invalid("callback_url points into a private network")
    return addresses


def _resolved(host: str, port: int, seconds: float) -> list[Any]:
    """`getaddrinfo`, which knows no deadline: a thread that is left behind asks. Raises TimeoutError beside its errors.

    A daemon, since it may outlive what asked by as long as the resolver has patience; nothing waits for it.
    """
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            answer.set_exception(error)

    Thread(target=ask, name="resolve", daemon=True).start()
    return answer.result(seconds)


def post(url: str, message_id: str, body: bytes, now: datetime) -> None:
    """Send once. Raises Invalid for an address that is refused, and Unavailable on anything but 2xx.

    All of it, from the host's name to the answer, takes `timeout_seconds` at most.
    """
    import httpx
    from standardwebhooks.webhooks import Webhook

    end = time.monotonic() + get_settings().webhooks.timeout_seconds
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        raise Invalid("callback_url must be an absolute http or https URL") from None
    addresses = addresses_of(target, end - time.monotonic())
    signature = Webhook(signing_secret()).sign(message_id, now, body.decode())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    try:
        status = asyncio.run(_send(target, addresses, headers, body, end - time.monotonic()))
    except (httpx.HTTPError, TimeoutError) as error:
        raise Unavailable(f"the callback could not be delivered: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise Unavailable(f"the callback answered {status}")


async def _send(target: "httpx.URL", addresses: list[str], headers: dict[str, str], body: bytes, seconds: float) -> int:
    """Connect to the first address that answers; answers the status. Raises httpx.HTTPError, TimeoutError.

    All of it together takes `seconds` at most: a receiver that sends a byte now and then would pass any limit
    on single reads, and hold a worker for good. Name and certificate stay those of the host. A transport of its own,
    since a proxy from the environment would resolve the name again.
    """
    import httpx

    named = headers | {"host": target.netloc.decode("ascii")}
    extensions = {"sni_hostname": target.raw_host.decode("ascii")}
    limits = httpx.Timeout(None, connect=seconds / len(addresses))
    transport = httpx.AsyncHTTPTransport()
    async with asyncio.timeout(seconds), httpx.AsyncClient(transport=transport, timeout=limits) as client:
        for number, address in enumerate(addresses, 1):
            place = target.copy_with(host=address)
            try:
                # Streamed: the answer is its status, and a receiver could send a body without end.
                async with client.stream("POST", place, content=body, headers=named, extensions=extensions) as answer:
                    return answer.status_code
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
    raise AssertionError("a host that resolves has an address")
