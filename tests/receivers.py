"""Real HTTP servers that receive callbacks, certificates for them, and names that lead to them."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_SECONDS = 300.0


def _open() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Receiver:
    """A server on the loopback; answers its statuses one after the other, the last of them from then on.

    While `answers` is cleared it keeps everybody waiting.
    """

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [204])
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    answers: threading.Event = field(default_factory=_open)

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        """Remember a request; answers the status for it."""
        self.requests.append((headers, body))
        self.answers.wait(PATIENCE_SECONDS)
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def receiving(*statuses: int, certificate: Path | None = None) -> Iterator[Receiver]:
    """A receiver, with TLS where it has a certificate; `names` are the server names that clients asked for."""
    receiver = Receiver(statuses=list(statuses) or [204])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(receiver.answer({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_certificate(path: Path, name: str) -> Path:
    """A self-signed certificate for a host name, with its key, in one PEM file; it can be trusted as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    who, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def name_host(monkeypatch: pytest.MonkeyPatch, name: str, *answers: Sequence[str]) -> list[str]:
    """Give a host name these addresses: the first answer, then the second. Returns who was asked for, in order.

    This stands in for a name server under a stranger's control; everything behind it is real.
    """
    real, asked, left = socket.getaddrinfo, [], list(answers)

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != name:
            return real(host, port, *arguments, **options)
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [entry for address in addresses for entry in real(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked
