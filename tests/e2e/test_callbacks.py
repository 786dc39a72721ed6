"""Receivers of callbacks that do not answer hold up other callbacks at most: stages have other workers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.stack import Child
from tests.e2e.world import World, here
from tests.receivers import receiving
from tests.service.factories import image_model, image_rows, write_parquet

pytestmark = pytest.mark.e2e

WORKERS = 1
AT_ONCE = 8
"""Callbacks that the stack has on their way at the same time."""


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    """Nobody hangs up before the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_WEBHOOKS__TIMEOUT_SECONDS", "120")
        yield


@pytest.fixture(scope="module")
def registered(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two models, neither of which any person of these tests is in, so that no stage needs the GPU worker."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "policy.toml").write_text('[batch]\nwindow = "0s"\n')
    model, data = image_model(folder / "model"), write_parquet(folder / "data.parquet", image_rows())
    options = ["--path", str(model), "--task", "image-classification", "--data", str(data)]
    for name in ("slow", "quick"):
        here("models", "register", name, *options, "--policy", str(folder / "policy.toml"))
    return world


def _worker(world: World) -> Child:
    return next(child for child in world.stack.children if child.name == "worker-notify")


def test_stages_go_on_while_every_delivery_waits(registered: World) -> None:
    world, count = registered, AT_ONCE + 3
    with receiving() as receiver:
        receiver.answers.clear()
        url = f"http://127.0.0.1:{receiver.port}/hook"
        for number in range(count):
            world.post(f"stranger-{number}", model="slow", callback_url=url)
        world.poll(lambda: len(receiver.requests) == AT_ONCE, 60, "callbacks on their way")
        for number in range(2):
            done = world.wait(world.post(f"other-{number}", model="quick")["id"], 40)
            assert done["targets"][0]["outcome"] == "no_records"
        assert len(receiver.requests) == AT_ONCE
        receiver.answers.set()
        world.poll(lambda: len(receiver.requests) == count, 60, "the other callbacks")
        world.poll(lambda: not world.sql("select id from outbox where topic = 'webhook'"), 60, "the last answers")
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == count


def test_the_worker_that_delivers_is_small(registered: World) -> None:
    """One process, without torch and the numeric libraries."""
    process = _worker(registered).process
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children == []
    loaded = {Path(line.split()[-1]).name for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()}
    assert not [name for name in loaded if name.startswith(("libtorch", "libarrow"))]
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 150 << 20
