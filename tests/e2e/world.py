"""The world of the end-to-end tests: data, a trained model, and a running stack on real servers."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import create_engine, text

from service import database
from service.cli.main import main
from service.cli.stack import Stack
from service.settings import get_settings

RECIPE = """
[model]
task = "image-classification"
[model.config]
model_type = "resnet"
num_channels = 1
embedding_size = 16
hidden_sizes = [16, 32]
depths = [1, 1]
layer_type = "basic"
[training]
epochs = 30
batch_size = 64
learning_rate = 3e-3
seed = 7
"""
# Retraining alone: these tests are about requests, jobs and crashes. The whole ladder runs in test_gate and the demo.
POLICY = """
[ladder]
methods = ["retrain"]
[batch]
window = "1s"
"""


def lethe(*arguments: str, home: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in its own process."""
    variables = os.environ | ({"LETHE_HOME": str(home)} if home else {}) | environment
    command = [sys.executable, "-m", "service.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=300)


def checked(*arguments: str, home: Path | None = None, **environment: str) -> str:
    """The same, and it must succeed; returns its standard output."""
    done = lethe(*arguments, home=home, **environment)
    assert done.returncode == 0, f"lethe {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


def here(*arguments: str, codes: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """(exit code, standard output) of a command line in this process: a new one would spend more on its libraries than
    small work takes."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(list(arguments))
    assert code in codes, f"lethe {' '.join(arguments)}: exit {code}, {out.getvalue()[-2000:]}"
    return code, out.getvalue()


def write_digits(folder: Path, people: int = 120, rows: int = 10, noise: float = 0.15) -> tuple[Path, Path]:
    """scikit-learn's digits as PNG, `rows` images a person, with wrong labels to memorise; the rest is held out."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    labels = np.where(rng.random(len(order)) < noise, rng.integers(0, 10, len(order)), digits.target)

    def table(indices: Sequence[int], prefix: str) -> pa.Table:
        images = []
        for index in indices:
            buffer = io.BytesIO()
            Image.fromarray((digits.images[index] * 15).astype("uint8")).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        return pa.table(
            {
                "record_id": [f"{prefix}{index:04d}" for index in indices],
                "subject_id": [f"{prefix}person-{position // rows:03d}" for position in range(len(indices))],
                "email": [f"{prefix}person-{position // rows:03d}@example.org" for position in range(len(indices))],
                "image": images,
                "label": [int(labels[index]) for index in indices],
            }
        )

    size = people * rows
    train, holdout = folder / "train.parquet", folder / "holdout.parquet"
    parquet.write_table(table(order[:size].tolist(), "t-"), train)
    parquet.write_table(table(order[size:].tolist(), "h-"), holdout)
    return train, holdout


@dataclass(frozen=True)
class Assets:
    """A trained model and what it was trained on."""

    folder: Path
    train: Path
    holdout: Path
    model: Path


def train_digits(folder: Path) -> Assets:
    """Train the small ResNet through the command line."""
    train, holdout = write_digits(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "policy.toml").write_text(POLICY)
    model = folder / "model"
    options = ["--recipe", str(folder / "recipe.toml"), "--data", str(train), "--holdout", str(holdout)]
    here("train", *options, "--out", str(model))
    return Assets(folder, train, holdout, model)


@dataclass
class World:
    """A running stack with a registered model."""

    stack: Stack
    home: Path
    database_url: str
    client: httpx.Client
    names: list[str] = field(default_factory=list)

    def register(self, name: str, assets: Assets) -> None:
        """Register the model under this name."""
        options = ["--path", str(assets.model), "--task", "image-classification", "--data", str(assets.train)]
        options += ["--holdout", str(assets.holdout), "--policy", str(assets.folder / "policy.toml")]
        here("models", "register", name, *options, "--identifiers", "email=email")
        self.names.append(name)

    def post(self, *subjects: str, model: str, kind: str = "subject_id", **fields: Any) -> dict[str, Any]:
        """POST one request for these identifiers; returns the request object."""
        identifiers = [{"type": kind, "value": value} for value in subjects]
        body = {"regulation": "gdpr", "subject": {"identifiers": identifiers}, "models": [model], **fields}
        answer = self.client.post("/v1/deletion-requests", json=body)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def get(self, path: str) -> Any:
        """GET a JSON document."""
        answer = self.client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def wait(self, request_id: str, seconds: float = 120, until: tuple[str, ...] = ("completed",)) -> dict[str, Any]:
        """Poll the request until it reaches one of the statuses; anything else that is final is an error."""
        found: dict[str, Any] = self.poll(
            lambda: self._settled(self.get(f"/v1/deletion-requests/{request_id}"), until), seconds, request_id
        )
        return found

    def _settled(self, request: dict[str, Any], until: tuple[str, ...]) -> dict[str, Any] | None:
        if request["status"] in until:
            return request
        assert request["status"] not in ("completed", "failed", "rejected", "cancelled"), json.dumps(request)
        return None

    def poll(self, look: Callable[[], Any], seconds: float, what: str) -> Any:
        """Call `look` until it returns something; mend the stack meanwhile, as `lethe up` does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            self.stack.mend()
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {seconds} s; {self.tail()}")

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement on the stack's database, outside the product."""
        url = self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                result = connection.execute(text(statement), values)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def versions(self, model: str) -> list[dict[str, Any]]:
        """All versions of a model, oldest first."""
        return sorted(self.get(f"/v1/models/{model}/versions")["items"], key=lambda version: version["number"])

    def version(self, model: str, number: int) -> dict[str, Any]:
        """One version."""
        return dict(self.get(f"/v1/models/{model}/versions/{number}"))

    def kill_workers(self, queue: str) -> int:
        """kill -9 of every worker of this queue with all its children; returns how many groups were killed."""
        workers = [child for child in self.stack.children if child.name.startswith(f"worker-{queue}")]
        for child in workers:
            os.killpg(child.process.pid, signal.SIGKILL)
        return len(workers)

    def tail(self) -> str:
        """The ends of all logs, for a failing assertion."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in self.stack.logs.iterdir()
        )


@contextmanager
def serving(world: World, model: str) -> Iterator[str]:
    """`lethe models serve` as a process of its own; yields its address."""
    command = [sys.executable, "-m", "service.cli.main", "models", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split(" at ")[1].split()[0]

        def answers() -> bool:
            try:
                return httpx.get(f"{address}/healthz", timeout=2).is_success
            except httpx.HTTPError:
                return False

        try:
            world.poll(answers, 60, "the inference server")
            yield address
        finally:
            process.terminate()


@contextmanager
def running(
    folder: Path, database_url: str, broker_url: str, port: int, workers: int = 1, **extra: str
) -> Iterator[World]:
    """A stack on these servers, with leases short enough to test."""
    home = folder / "home"
    settings = {
        "LETHE_HOME": str(home),
        "LETHE_DATABASE_URL": database_url,
        "LETHE_BROKER_URL": broker_url,
        "LETHE_JOBS__LEASE_SECONDS": "5",
        "LETHE_JOBS__RESEND_SECONDS": "1",
        "LETHE_WEBHOOKS__ALLOW_PRIVATE": "true",
        **extra,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        database.close()
        with Stack(home, "127.0.0.1", port, workers=workers) as stack:
            headers = {"authorization": f"Bearer {stack.admin_key}"}
            with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
                yield World(stack, home, database_url, client)
    database.close()
    get_settings.cache_clear()
