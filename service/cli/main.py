"""`lethe`: one file per command group, imported when it is called, so that `lethe --help` is instant.

Errors are one line on standard error and never a traceback (LETHE_DEBUG=1 shows it). Exit 0 success, 1 failed, 2 bad
usage or input.
"""

import os
import sys
from typing import ClassVar

import typer
from typer.exceptions import Abort, TyperException

from service.cli.lazy import Lazy, LazyGroup
from service.errors import BadRequest, Invalid, LetheError


class _Lethe(LazyGroup):
    table: ClassVar = {
        "up": Lazy("service.cli.up:command", "Serve everything on this machine until Ctrl-C."),
        "demo": Lazy("entry:demo", "Run the main job end to end on two small models."),
        "doctor": Lazy("service.cli.doctor:command", "Check the installation."),
        "requests": Lazy("service.cli.requests:command", "Create, follow and list deletion requests over HTTP."),
        "jobs": Lazy("service.cli.jobs:command", "List and follow jobs; release or approve what they publish."),
        "models": Lazy("service.cli.models:command", "Register, prepare, list and serve models."),
        "datasets": Lazy("service.cli.datasets:command", "List registered data; rewrite it without deleted records."),
        "train": Lazy("entry:train", "Train a model by a recipe."),
        "unlearn": Lazy("entry:unlearn", "Make a model directory forget records, without the service."),
        "evaluate": Lazy("entry:evaluate", "Judge a candidate model directory."),
        "references": Lazy("entry:references", "Build a pool of reference models, without the service."),
        "qualify": Lazy("entry:qualify", "Measure a method on simulated deletions."),
        "methods": Lazy("service.cli.catalogue:methods", "List the unlearning methods."),
        "metrics": Lazy("service.cli.catalogue:metrics", "List the measurements."),
        "report": Lazy("service.cli.report:command", "Verify a report bundle offline."),
        "audit": Lazy("service.cli.audit:command", "Verify the audit log."),
        "keys": Lazy("service.cli.keys:command", "Make, list and revoke API keys."),
        "db": Lazy("service.cli.db:command", "Migrate the database."),
        "scheduler": Lazy("service.cli.scheduler:command", "Run the scheduler beside an API."),
    }


app = typer.Typer(
    cls=_Lethe,
    help="Lethe makes trained models forget people, measures how well it worked and leaves evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would double the time to the first line
)


@app.callback()
def _root() -> None:
    """Lethe makes trained models forget people, measures how well it worked and leaves evidence."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; answers the exit code."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name="lethe", standalone_mode=False)
    except TyperException as error:
        return _tell_usage(error)
    except LetheError as error:
        if _is_debugging():
            raise
        return _tell(error.detail, 2 if isinstance(error, Invalid | BadRequest) else 1)
    except (Abort, KeyboardInterrupt):
        return _tell("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe has gone; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if _is_debugging():
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        return _tell(f"{type(error).__name__}: {first} (LETHE_DEBUG=1 shows where)", 1)
    return result if isinstance(result, int) else 0


def _tell(line: str, code: int) -> int:
    sys.stderr.write(f"lethe: {' '.join(line.split())}\n")
    return code


def _tell_usage(error: TyperException) -> int:
    code = int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error}\n")
        return code
    told = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    return _tell(f"{told.rstrip('.')}{hint}", code)


def _is_debugging() -> bool:
    return bool(os.environ.get("LETHE_DEBUG"))


if __name__ == "__main__":
    sys.exit(main())
