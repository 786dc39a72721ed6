"""Everything the demo needs running: data on disk, two trained and registered models, the stack, two servers."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.cli.stack import Stack
from service.errors import BadParameters
from workers.demo.asking import Service
from workers.demo.processes import Command, ModelServer, embedded_defaults, free_port
from workers.demo.screen import Screen
from workers.demo.world import Files, World, make_world

MARKER = ".lethe-demo"
_TASKS = {"digits": "image-classification", "support": "causal-lm"}


@dataclass(frozen=True)
class Lab:
    """What the story talks to."""

    world: World
    service: Service
    digits: ModelServer
    support: ModelServer


def prepare_home(home: Path) -> None:
    """An empty home; what a former demo left is removed. Raises BadParameters for a folder that holds anything else."""
    if home.exists() and not home.is_dir():
        raise BadParameters(f"{home} is not a folder: give another --home")
    if home.exists() and any(home.iterdir()):
        if not (home / MARKER).is_file():
            raise BadParameters(f"{home} is not empty and was not made by a demo: give another --home")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARKER).write_text("Made by `lethe demo`, which removes this folder when it runs again.\n", "utf-8")


@contextmanager
def running_lab(home: Path, screen: Screen) -> Iterator[Lab]:
    """The whole of it, on embedded defaults in `home`; stopped on leaving. Raises JobError or Unavailable."""
    logs = home / "logs" / "demo"
    with ExitStack() as exits:
        exits.enter_context(embedded_defaults(home))
        world = make_world(home / "data")
        files = {"digits": world.digits, "support": world.support}
        # Both trainings run while the stack starts.
        trainings = {name: _train(name, each, logs, exits) for name, each in files.items()}
        stack = exits.enter_context(Stack(home, port=free_port(), workers=2))
        screen.line(f"API at {stack.url}, scheduler, broker and three Celery workers are up.")
        service = Service(stack)
        exits.callback(service.close)
        for name, training in trainings.items():
            training.check()
            screen.line(f"{_describe(name, files[name])} Trained in {training.seconds:.0f} s.")
        for name, each in files.items():
            _register(name, each, logs)
        servers = {name: _serve(name, logs, exits) for name in files}
        for name, server in servers.items():
            server.wait()
            screen.line(f"`lethe models serve {name}` answers at {server.url} with version {server.version()}.")
        yield Lab(world, service, servers["digits"], servers["support"])


def _describe(name: str, files: Files) -> str:
    if name == "digits":
        return (
            f"digits: a ResNet on {files.records:,} handwritten digits of {files.people} writers, 15 % labelled wrong."
        )
    return (
        f"support: a GPT-2 architecture on {files.records:,} support questions and answers of {files.people} customers."
    )


def _train(name: str, files: Files, logs: Path, exits: ExitStack) -> Command:
    options = ["--recipe", str(files.recipe), "--data", str(files.train), "--holdout", str(files.holdout)]
    training = Command(f"train-{name}", ["train", *options, "--out", str(files.model)], logs)
    exits.callback(training.stop)
    return training


def _register(name: str, files: Files, logs: Path) -> None:
    options = ["--path", str(files.model), "--task", _TASKS[name], "--data", str(files.train)]
    options += ["--holdout", str(files.holdout), "--recipe", str(files.recipe), "--policy", str(files.policy)]
    if name == "support":
        options += ["--identifiers", "email=email"]
    Command(f"register-{name}", ["models", "register", name, *options], logs).check()


def _serve(name: str, logs: Path, exits: ExitStack) -> ModelServer:
    server = ModelServer(name, logs)
    exits.callback(server.stop)
    return server
