"""A load generator in its own process: raw sockets with keep-alive, one request in flight on each connection.

HTTP client libraries cost more per request than the service under test; this one costs about 30 microseconds.
`python -m benchmarks.client` reads a `Load` as JSON from standard input and prints a `Tally` as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast

PATIENCE_SECONDS = 15.0


@dataclass(frozen=True)
class Load:
    """What to send: `body` with `%d` replaced by a number that no other request has.

    Requests that are answered within `warm_up` seconds are not counted, nor are those that end after `seconds` more.
    With `requests` > 0 so many are sent, and all are counted.
    """

    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    seconds: float
    warm_up: float = 0.5
    requests: int = 0
    first: int = 0
    expected: int = 202


@dataclass
class Tally:
    """What came back. Latencies are in milliseconds; `statuses` counts every answer, `errors` those not expected."""

    answered: int = 0
    seconds: float = 0.0
    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    worst: float = 0.0
    sent: int = 0
    errors: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    first_error: str = ""


def measure(load: Load) -> Tally:
    """Run the load in a process of its own. Raises CalledProcessError when that process fails."""
    command = [sys.executable, "-m", "benchmarks.client"]
    limit = load.warm_up + load.seconds + 4 * PATIENCE_SECONDS
    text = json.dumps(asdict(load))
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    return Tally(**json.loads(done.stdout))


class _Run:
    """The state that all connections share."""

    def __init__(self, load: Load) -> None:
        self.load, self.tally, self.latencies = load, Tally(), list[float]()
        headers = {"host": "127.0.0.1", "content-type": "application/json", **load.headers}
        self.head = f"POST {load.path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        self.start = time.perf_counter() + (0.0 if load.requests else load.warm_up)
        self.end = self.start + load.seconds
        self.first_count = self.last_count = 0.0

    def next_request(self) -> bytes | None:
        """The bytes of the next request, or None when enough have been sent."""
        load, tally = self.load, self.tally
        if tally.sent >= load.requests if load.requests else time.perf_counter() >= self.end:
            return None
        body = load.body.replace("%d", str(load.first + tally.sent))
        tally.sent += 1
        return f"{self.head}content-length: {len(body)}\r\n\r\n{body}".encode()

    def count(self, status: int, began: float, answer: bytes) -> None:
        """Note one answer."""
        now, tally = time.perf_counter(), self.tally
        tally.statuses[str(status)] = tally.statuses.get(str(status), 0) + 1
        if status != self.load.expected:
            tally.errors += 1
            tally.first_error = tally.first_error or answer[:400].decode(errors="replace")
        elif self.load.requests or self.start <= now < self.end:
            self.latencies.append((now - began) * 1000)

    def finish(self, seconds: float) -> Tally:
        """The figures."""
        tally, ordered = self.tally, sorted(self.latencies)
        tally.answered, tally.seconds = len(ordered), seconds
        if ordered:
            tally.per_second = len(ordered) / seconds
            tally.p50 = ordered[len(ordered) // 2]
            tally.p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            tally.worst = ordered[-1]
        return tally


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers must carry a Content-Length, as those of both services do."""

    def __init__(self, run: _Run, done: asyncio.Future[None]) -> None:
        self._run, self._done, self._buffer, self._began = run, done, bytearray(), 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        request = self._run.next_request()
        if request is None:
            self._began = 0.0
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, end)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        self._run.count(int(self._buffer[9:12]), self._began, bytes(self._buffer))
        self._buffer.clear()
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._began:  # lost in the middle of a request
            self._run.count(0, self._began, f"connection lost: {error}".encode())
        if not self._done.done():
            self._done.set_result(None)


async def _drive(load: Load) -> Tally:
    loop, run = asyncio.get_running_loop(), _Run(load)
    began, ends = time.perf_counter(), []
    for _ in range(load.connections):
        done = loop.create_future()
        ends.append(done)
        await loop.create_connection(lambda done=done: _Connection(run, done), "127.0.0.1", load.port)  # type: ignore[misc]
    limit = PATIENCE_SECONDS + (PATIENCE_SECONDS if load.requests else load.warm_up + load.seconds)
    _, late = await asyncio.wait(ends, timeout=limit)
    for _ in late:
        run.count(-1, 0.0, b"no answer in time")
    return run.finish(time.perf_counter() - began if load.requests else load.seconds)


def main() -> None:
    """Read the load, run it, print the tally."""
    load = Load(**json.load(sys.stdin))
    try:
        import uvloop

        tally = uvloop.run(_drive(load))
    except ImportError:
        tally = asyncio.run(_drive(load))
    print(json.dumps(asdict(tally)))


if __name__ == "__main__":
    main()
