"""The inference server: answers, errors, and switching versions under load without dropping a request."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from service.errors import BadModel, Conflict, Gone, NotFound
from tests.workers import served_models
from tests.workers.factories import png
from workers.serving.loader import load_served
from workers.serving.pointer import read_pointer
from workers.serving.server import create_app, make_watcher
from workers.serving.watcher import Watcher

HEADER = "lethe-model-version"
IMAGE = base64.b64encode(png(np.zeros((8, 8)))).decode()
BODY = {"instances": [{"image": IMAGE}]}


@dataclass
class Server:
    url: str
    watcher: Watcher

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def wait_for(self, number: int | None, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while (self.watcher.current.number if self.watcher.current else None) != number:
            assert time.monotonic() < deadline, f"version {number} was not loaded"
            time.sleep(0.01)


@contextlib.contextmanager
def serving(name: str) -> Iterator[Server]:
    """The server as `lethe models serve` runs it, on a free port, in a thread of the test."""
    watcher = make_watcher(name, poll_seconds=0.05)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(name, watcher), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", watcher)
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def image_server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    """An image classifier, on each kind of database."""
    served_models.register("digits", "image-classification", served_models.image_model(tmp_path / "v1", 1))
    with serving("digits") as server:
        yield server


@pytest.fixture
def language_server(sqlite_home: Path, tmp_path: Path) -> Iterator[Server]:
    served_models.register("support", "causal-lm", served_models.language_model(tmp_path / "v1", 1))
    with serving("support") as server:
        yield server


@dataclass
class Hammer:
    """Clients that never pause; each keeps one connection and writes down what it was answered."""

    server: Server
    path: str
    body: dict[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[list[tuple[int, int, dict[str, Any]]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        while len(self.answers) < clients:
            time.sleep(0.01)
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)

    def wait_until_seen(self, number: int, seconds: float = 30) -> None:
        """Until every connection has been answered by this version, or one has broken."""
        deadline = time.monotonic() + seconds
        while not self.errors and not all(seen and seen[-1][1] == number for seen in self.answers):
            assert time.monotonic() < deadline, f"version {number} does not reach every connection"
            time.sleep(0.01)

    def _run(self) -> None:
        seen: list[tuple[int, int, dict[str, Any]]] = []
        self.answers.append(seen)
        try:
            with self.server.client() as client:
                while not self.stop.is_set():
                    answer = client.post(self.path, json=self.body)
                    seen.append((answer.status_code, int(answer.headers.get(HEADER, -1)), answer.json()))
        except (httpx.HTTPError, ValueError) as error:
            self.errors.append(repr(error))


def _assert_clean(hammer: Hammer, last: int) -> None:
    assert not hammer.errors
    for seen in hammer.answers:
        assert {status for status, _, _ in seen} == {200}
        assert all(header == body["version"] for _, header, body in seen)
        versions = [header for _, header, _ in seen]
        assert versions == sorted(versions), "a connection went back to an older version"
        assert versions[-1] == last


@pytest.mark.slow
def test_switching_under_load_drops_no_request(image_server: Server, tmp_path: Path) -> None:
    hammer = Hammer(image_server, "/predict", BODY)
    with hammer.running(clients=8):
        hammer.wait_until_seen(1)
        for number in range(2, 6):
            path = served_models.image_model(tmp_path / f"v{number}", number)
            assert served_models.publish("digits", path) == number
            hammer.wait_until_seen(number)
    _assert_clean(hammer, last=5)
    answers = [answer for seen in hammer.answers for answer in seen]
    assert {header for _, header, _ in answers} == {1, 2, 3, 4, 5}
    # The weights of version k answer k to everything: what was computed is what the header says.
    assert all(body["predictions"][0]["label"] == header for _, header, body in answers)


@pytest.mark.slow
def test_completions_switch_under_load(language_server: Server, tmp_path: Path) -> None:
    hammer = Hammer(language_server, "/v1/completions", {"prompt": "hello", "max_tokens": 4, "temperature": 0})
    with hammer.running(clients=4):
        hammer.wait_until_seen(1)
        for number in (2, 3):
            path = served_models.language_model(tmp_path / f"v{number}", number)
            served_models.publish("support", path)
            hammer.wait_until_seen(number)
    _assert_clean(hammer, last=3)
    for seen in hammer.answers:
        for _, header, body in seen:
            assert body["choices"][0]["text"] == f" {served_models.WORDS[header]}" * 4


def test_a_request_in_flight_finishes_on_its_version(image_server: Server, tmp_path: Path) -> None:
    old = image_server.watcher.current
    assert old is not None
    reference = weakref.ref(old.loaded.model)
    with ThreadPoolExecutor(1) as pool, image_server.client() as client:
        with old.lock:  # the request waits for the model while the version changes
            idle = sys.getrefcount(old)
            waiting = pool.submit(client.post, "/predict", json=BODY)
            while sys.getrefcount(old) == idle:  # until the request has come in and holds its version
                time.sleep(0.01)
            served_models.publish("digits", served_models.image_model(tmp_path / "v2", 2))
            image_server.wait_for(2)
            assert image_server.watcher.retiring == 1
        del old
        answer = waiting.result()
        assert answer.json()["version"] == 1
        assert answer.headers[HEADER] == "1"
        assert answer.json()["predictions"][0]["label"] == 1
        assert client.post("/predict", json=BODY).json()["version"] == 2
    deadline = time.monotonic() + 10
    while reference() is not None or image_server.watcher.retiring:
        assert time.monotonic() < deadline, "the old weights stayed in memory"
        time.sleep(0.05)


def test_weights_are_rounded_as_registered_and_again_when_that_changes(image_server: Server) -> None:
    from workers.modeling.rounding import rounded

    first = image_server.watcher.current
    assert first is not None
    served_models.set_precision("digits", "int4")
    deadline = time.monotonic() + 20
    while (now := image_server.watcher.current) is None or now.pointer.precision != "int4":
        assert time.monotonic() < deadline, "the other precision was not loaded"
        time.sleep(0.01)
    wanted = rounded(first.loaded.model, "int4").state_dict()
    found = now.loaded.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert any(not torch.equal(found[name], value) for name, value in first.loaded.model.state_dict().items())
    with image_server.client() as client:
        told = client.get("/version").json()
        assert (told["version"], told["precision"]) == (1, "int4")
        assert client.post("/predict", json=BODY).json()["predictions"][0]["label"] == 1


def test_a_version_that_was_tampered_with_is_not_served(image_server: Server, tmp_path: Path) -> None:
    path = served_models.image_model(tmp_path / "v2", 2)
    served_models.publish("digits", path, digest="0" * 64)
    image_server.wait_for(None)
    with image_server.client() as client:
        answer = client.post("/predict", json=BODY)
        assert answer.status_code == 503
        assert answer.json()["code"] == "unavailable"
        assert "digest" in answer.json()["detail"]
        assert HEADER not in answer.headers
        assert client.get("/healthz").status_code == 503


def test_a_retired_version_is_withdrawn(image_server: Server) -> None:
    with image_server.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        served_models.set_state("digits", "retired")
        image_server.wait_for(None)
        assert client.post("/predict", json=BODY).status_code == 503


@pytest.mark.parametrize("state", ["retired", "destroyed"])
def test_what_was_retired_is_never_loaded(sqlite_home: Path, tmp_path: Path, state: str) -> None:
    served_models.register("digits", "image-classification", served_models.image_model(tmp_path / "v1", 1))
    served_models.set_state("digits", state)
    with pytest.raises(Gone, match=state):
        make_watcher("digits")


def test_what_cannot_be_served_is_told_at_the_start(sqlite_home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'"):
        make_watcher("nobody")
    path = served_models.image_model(tmp_path / "v1", 1)
    served_models.register("digits", "image-classification", path)
    pointer = read_pointer("digits")
    (path / "config.json").write_bytes((path / "config.json").read_bytes() + b" ")
    with pytest.raises(BadModel, match="digest"):
        load_served(pointer, torch.device("cpu"), threading.Lock())
    shutil.rmtree(path)
    with pytest.raises(BadModel, match="missing"):
        load_served(pointer, torch.device("cpu"), threading.Lock())
    served_models.set_state("digits", "candidate")
    with pytest.raises(Conflict, match="candidate"):
        read_pointer("digits")


@pytest.mark.e2e
def test_the_command_serves_until_it_is_told_to_stop(sqlite_home: Path, tmp_path: Path) -> None:
    served_models.register("digits", "image-classification", served_models.image_model(tmp_path / "v1", 1))
    command = [sys.executable, "-m", "service.cli.main", "models", "serve", "digits", "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = line.split()[-3]
            assert line == f"Serving digits version 1 at {url} until Ctrl-C\n"
            with httpx.Client(base_url=url, timeout=30) as client:
                assert client.post("/predict", json=BODY).json()["version"] == 1
                served_models.publish("digits", served_models.image_model(tmp_path / "v2", 2))
                deadline = time.monotonic() + 20
                while client.get("/version").json()["version"] != 2:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert client.post("/predict", json=BODY).json()["predictions"][0]["label"] == 2
            taken = url.rpartition(":")[2]
            refused = subprocess.run([*command[:-1], taken], capture_output=True, text=True, check=False)
            assert refused.returncode == 2
            assert f"port {taken}" in refused.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    unknown = subprocess.run([*command[:-3], "nobody"], capture_output=True, text=True, check=False)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "no model 'nobody'" in unknown.stderr


def test_predict_tells_labels_and_probabilities(image_server: Server) -> None:
    with image_server.client() as client:
        answer = client.post("/predict", json={**BODY, "top_k": 2})
        assert answer.status_code == 200
        body = answer.json()
        (prediction,) = body["predictions"]
        assert (body["model"], body["version"], prediction["label"]) == ("digits", 1, 1)
        expected = float(np.exp(5) / (np.exp(5) + served_models.LABELS - 1))
        assert prediction["probability"] == pytest.approx(expected, abs=1e-5)
        assert prediction["top_k"][0]["label"] == 1
        assert len(prediction["top_k"]) == 2
        version = client.get("/version").json()
        digest = read_pointer("digits").digest
        assert version == {"model": "digits", "version": 1, "digest": digest, "precision": "fp32"}


def test_text_is_classified(sqlite_home: Path, tmp_path: Path) -> None:
    path = served_models.text_model(tmp_path / "v1", 3)
    served_models.register("topics", "text-classification", path)
    with serving("topics") as server, server.client() as client:
        body = {"instances": [{"text": "hello one"}, {"text": "two and three and four"}]}
        answer = client.post("/predict", json=body).json()
        assert [each["label"] for each in answer["predictions"]] == [3, 3]
        assert client.post("/predict", json=BODY).status_code == 422


def test_bad_predictions_are_problems(image_server: Server) -> None:
    with image_server.client() as client:
        for body, status, code, part in [
            (b"{", 400, "malformed_body", "JSON"),
            (b"{}", 422, "invalid", "/instances"),
            (b'{"instances": []}', 422, "invalid", "/instances"),
            (b'{"instances": [{"text": "x"}]}', 422, "invalid", "'image'"),
            (b'{"instances": [{"image": "%%%"}]}', 422, "invalid", "base64"),
            (b'{"instances": [{"image": "AAAA"}]}', 422, "invalid", "decoded"),
            (b'{"instances": [{"image": "AAAA"}], "jane@example.org": 1}', 422, "invalid", "unknown field"),
        ]:
            answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == status, body
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers[HEADER] == "1"
            assert answer.json()["code"] == code
            assert part in answer.json()["detail"]
            assert "jane" not in answer.text


def test_errors_of_the_address(image_server: Server) -> None:
    with image_server.client() as client:
        assert client.get("/nothing").json()["code"] == "not_found"
        assert client.get("/predict").json()["code"] == "method_not_allowed"
        assert client.post("/predict", content=b"x").json()["code"] == "unsupported_media_type"
        wrong = client.post("/v1/completions", json={"prompt": "hello"})
        assert wrong.status_code == 404
        assert "POST /predict" in wrong.json()["detail"]
        big = client.post("/predict", content=b" " * (16 << 20) + b"{}", headers={"content-type": "application/json"})
        assert big.status_code == 413
        sizes = [base64.b64encode(png(np.zeros((side, side)))).decode() for side in (8, 9)]
        mixed = client.post("/predict", json={"instances": [{"image": size} for size in sizes]})
        assert mixed.status_code == 422
        # The server does not remember the size of what it has seen.
        for size in sizes:
            assert client.post("/predict", json={"instances": [{"image": size}]}).status_code == 200


def test_completions_follow_the_openai_shape(language_server: Server) -> None:
    with language_server.client() as client:
        body = {"model": "support", "prompt": "hello", "max_tokens": 3, "temperature": 0}
        answer = client.post("/v1/completions", json=body).json()
        assert answer["object"] == "text_completion"
        assert (answer["model"], answer["version"]) == ("support", 1)
        assert answer["choices"] == [{"text": " one one one", "index": 0, "logprobs": None, "finish_reason": "length"}]
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["completion_tokens"] == 3
        many = client.post("/v1/completions", json={**body, "prompt": ["hello", "", "hello two and three"]}).json()
        assert [choice["index"] for choice in many["choices"]] == [0, 1, 2]
        assert {choice["text"] for choice in many["choices"]} == {" one one one"}
        stopped = client.post("/v1/completions", json={**body, "max_tokens": 8, "stop": ["e one"]}).json()
        assert stopped["choices"][0] | {"logprobs": 0} == {
            "text": " on", "index": 0, "logprobs": 0, "finish_reason": "stop"
        }  # fmt: skip
        assert stopped["usage"]["completion_tokens"] < 8
        sampled = [
            client.post("/v1/completions", json={**body, "temperature": 2.0, "seed": 7}).json() for _ in range(2)
        ]
        assert sampled[0]["choices"] == sampled[1]["choices"]


def test_completions_that_cannot_be_given(language_server: Server) -> None:
    with language_server.client() as client:
        for body, part in [
            ({"prompt": "hello " * 40}, "positions"),
            ({"prompt": []}, "/prompt"),
            ({"prompt": "hello", "n": 2}, "/n"),
            ({"prompt": "hello", "temperature": -1}, "/temperature"),
            ({"prompt": "hello", "stream": True}, "/stream"),
            ({"prompt": "hello", "model": "other"}, "/model"),
        ]:
            answer = client.post("/v1/completions", json=body)
            assert answer.status_code == 422, body
            assert part in answer.json()["detail"]
        assert client.post("/predict", json=BODY).status_code == 404
        # A prompt that leaves room for less than max_tokens gets what fits.
        roomy = client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 400, "temperature": 0}).json()
        assert roomy["usage"]["total_tokens"] == 32
