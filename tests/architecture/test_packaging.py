"""The locks hold what pyproject.toml asks for and nothing of this machine; compose agrees with the code."""

import re
import tomllib

import pytest
import yaml

from service import queue
from tests.architecture.files import ROOT

LOCKS = {
    "requirements-api.lock": [],
    "requirements.lock": ["worker"],
    "requirements-dev.lock": ["worker", "dev"],
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.M))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_dependency_but_torch(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in LOCKS[lock]]
    wanted = [*project["dependencies"], *(line for lines in extras for line in lines)]
    names = {canonical(re.split(r"[\[<>=;! ]", line)[0]) for line in wanted}
    assert names - set(pins(lock)) <= {"torch"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_depends_on_no_machine(lock: str) -> None:
    assert not [name for name in pins(lock) if re.match("torch$|nvidia|triton|cuda", name)]
    assert "://" not in (ROOT / lock).read_text()


def test_the_images_get_the_versions_that_are_tested() -> None:
    tested = pins("requirements-dev.lock")
    for lock in LOCKS:
        assert pins(lock).items() <= tested.items()


def test_compose_serves_every_queue_and_defaults_no_secret() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    served = {services[name]["command"][5] for name in ("worker-cpu", "worker-gpu", "worker-notify")}
    assert served == {queue.QUEUE_CPU, queue.QUEUE_GPU, queue.QUEUE_NOTIFY}
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)(:?.?)", text)
    assert {mark for _, mark in secrets} == {":?"}
