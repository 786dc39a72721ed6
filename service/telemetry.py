"""Metrics in the Prometheus text form. Labels are templates, statuses and codes: no ids and nothing personal."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()
CONTENT_TYPE = CONTENT_TYPE_LATEST

HTTP_SECONDS = Histogram(
    "lethe_http_request_seconds",
    "Time to answer HTTP requests.",
    ("method", "route", "status"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
REQUESTS_RECEIVED = Counter(
    "lethe_deletion_requests_received_total",
    "Deletion requests accepted by intake.",
    ("regulation",),
    registry=REGISTRY,
)


class _Source(Collector):
    def __init__(self, read: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._read()

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # so that registering does not read: the database may not be there yet


def add_source(read: Callable[[], Iterable[GaugeMetricFamily]]) -> Callable[[], None]:
    """Let `read` fill gauges at each scrape; the answer takes it out again."""
    source = _Source(read)
    REGISTRY.register(source)
    return lambda: REGISTRY.unregister(source)


def expose() -> bytes:
    """The scrape."""
    return generate_latest(REGISTRY)


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered HTTP request. Unknown methods share one label, or a scanner could make series without end."""
    HTTP_SECONDS.labels(method if method in _METHODS else "other", route, status).observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
