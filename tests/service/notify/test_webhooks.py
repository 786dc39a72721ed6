"""Callbacks over real sockets: what arrives, to whom it is sent, and whom it is never sent to."""

import json
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from service.errors import Invalid, Unavailable
from service.notify import webhooks
from service.settings import get_settings
from tests.receivers import name_host, receiving, write_certificate

HOST = "receiver.test"


@pytest.fixture
def private(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receivers of these tests listen on the loopback."""
    monkeypatch.setenv("LETHE_WEBHOOKS__ALLOW_PRIVATE", "true")
    monkeypatch.setenv("LETHE_WEBHOOKS__TIMEOUT_SECONDS", "5")
    get_settings.cache_clear()


def _post(url: str) -> None:
    now = datetime.now(UTC)
    webhooks.post(url, "out_1", webhooks.body_of("req_1", "completed", "T-1", now), now)


def test_a_callback_is_signed_and_names_its_host(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = name_host(monkeypatch, HOST, ["127.0.0.1"])
    with receiving() as receiver:
        _post(f"http://{HOST}:{receiver.port}/hook?x=1")
    ((headers, body),) = receiver.requests
    assert headers["host"] == f"{HOST}:{receiver.port}"
    assert json.loads(body)["data"] == {"id": "req_1", "status": "completed", "external_id": "T-1"}
    Webhook(webhooks.signing_secret()).verify(body, headers)
    assert asked == [HOST]


def test_a_name_that_answers_differently_the_second_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it is checked, this very machine when it is connected to."""
    # A multicast group is no private network, and TCP does not send a packet to it.
    asked = name_host(monkeypatch, HOST, ["224.0.0.1"], ["127.0.0.1"])
    with receiving() as receiver:
        with pytest.raises(Unavailable):
            _post(f"http://{HOST}:{receiver.port}/")
        assert receiver.requests == []
    assert asked == [HOST]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["1.1.1.1", "::1"]])
def test_a_private_address_among_them_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    name_host(monkeypatch, HOST, addresses)
    with receiving() as receiver:
        with pytest.raises(Invalid, match="private network"):
            _post(f"http://{HOST}:{receiver.port}/")
        with pytest.raises(Invalid, match="private network"):
            _post(f"http://127.0.0.1:{receiver.port}/")
        assert receiver.requests == []


def test_the_next_address_is_tried_where_the_first_refuses(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    name_host(monkeypatch, HOST, ["127.0.0.2", "127.0.0.1"])  # the receiver does not listen on the first
    with receiving() as receiver:
        _post(f"http://{HOST}:{receiver.port}/")
    assert len(receiver.requests) == 1
    with pytest.raises(Unavailable, match="could not be delivered: ConnectError"):
        _post(f"http://{HOST}:{receiver.port}/")


def test_the_certificate_is_that_of_the_name(private: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "receiver.pem", HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    name_host(monkeypatch, HOST, ["127.0.0.1"])
    name_host(monkeypatch, "other.test", ["127.0.0.1"])
    with receiving(certificate=certificate) as receiver:
        _post(f"https://{HOST}:{receiver.port}/")
        assert len(receiver.requests) == 1
        for wrong in ("other.test", "127.0.0.1"):
            with pytest.raises(Unavailable, match="could not be delivered: ConnectError"):
                _post(f"https://{wrong}:{receiver.port}/")
        assert len(receiver.requests) == 1
        assert receiver.names == [HOST, "other.test", None]  # an address is no server name


def test_a_certificate_that_nobody_vouches_for_is_refused(
    private: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    name_host(monkeypatch, HOST, ["127.0.0.1"])
    with receiving(certificate=write_certificate(tmp_path / "receiver.pem", HOST)) as receiver:
        with pytest.raises(Unavailable, match="could not be delivered"):
            _post(f"https://{HOST}:{receiver.port}/")
        assert receiver.requests == []


def test_a_proxy_of_the_environment_is_not_asked(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with receiving() as receiver:
        _post(f"http://127.0.0.1:{receiver.port}/")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [302, 404, 500])
def test_anything_but_success_is_told(private: None, status: int) -> None:
    with receiving(status) as receiver, pytest.raises(Unavailable, match=f"answered {status}"):
        _post(f"http://127.0.0.1:{receiver.port}/")
    assert len(receiver.requests) == 1


def test_an_answer_in_drops_does_not_hold_the_sender(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_WEBHOOKS__TIMEOUT_SECONDS", "1")
    get_settings.cache_clear()
    dropped = []

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the sender has hung up
            for letter in b"HTTP/1.1 200 OK\r\nx: " + b"x" * 80:
                connection.send(bytes([letter]))
                dropped.append(letter)
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=drip, args=(listener,))
        thread.start()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="could not be delivered: TimeoutError"):
            _post(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert time.monotonic() - began < 5
        thread.join()
    assert 0 < len(dropped) < 80


@pytest.mark.parametrize("url", ["ftp://example.org/", "https://", "https://[::1", "mailto:jane@example.org", "/x"])
def test_what_is_no_address_is_refused(private: None, url: str) -> None:
    with pytest.raises(Invalid, match="absolute http or https URL"):
        _post(url)


def test_a_name_that_does_not_resolve(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(Unavailable, match="does not resolve"):
        _post(f"https://{HOST}/")
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="does not resolve"):
        _post(f"https://{'a' * 70}.test/")


def test_a_resolver_that_does_not_answer_does_not_hold_the_sender(
    private: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_WEBHOOKS__TIMEOUT_SECONDS", "1")
    get_settings.cache_clear()
    answers, real = Event(), socket.getaddrinfo

    def late(_: str, port: int, **options: Any) -> Any:
        answers.wait(30)
        return real("127.0.0.1", port, **options)

    with receiving() as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", late)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="did not resolve in time"):
            _post(f"http://{HOST}:{receiver.port}/")
        assert time.monotonic() - began < 5
        answers.set()
        # What it answers after that leads nowhere.
        for thread in [thread for thread in enumerate_threads() if thread.name == "resolve"]:
            thread.join(5)
        assert receiver.requests == []


def test_time_spent_on_the_name_is_missing_for_the_answer(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_WEBHOOKS__TIMEOUT_SECONDS", "2")
    get_settings.cache_clear()
    real = socket.getaddrinfo

    def slow(_: str, port: int, **options: Any) -> Any:
        time.sleep(1.2)
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with receiving() as receiver:
        receiver.answers.clear()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="TimeoutError"):
            _post(f"http://{HOST}:{receiver.port}/")
        assert 1.9 < time.monotonic() - began < 3.0
        receiver.answers.set()
