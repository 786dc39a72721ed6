"""`lethe audit verify`: check the whole sealed log, or exported events."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.db import require_schema
from service.cli.output import AsJson, print_json
from service.errors import Invalid

command = typer.Typer(help="Check the audit log.", no_args_is_help=True)

_PAGE = 1000


@command.callback()
def audit() -> None:
    """Check the audit log."""


@command.command()
def verify(
    events: Annotated[
        Path | None, typer.Option(help="an exported events.json to check instead of this installation's database")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every leaf hash and chain link of the log; exit 0 when all are right, 1 when one is not."""
    size, faults = _check_file(events) if events else _check_database()
    if as_json:
        print_json({"ok": not faults, "events": size, "faults": faults})
    else:
        for fault in faults:
            typer.echo(f"FAILED  {fault}")
        typer.echo(f"{'NOT VERIFIED' if faults else 'verified'}: {size:,} sealed events")
    if faults:
        raise typer.Exit(1)


def _check_file(path: Path) -> tuple[int, list[str]]:
    from service.reports.verify import verify_events

    try:
        events = json.loads(path.read_bytes())["events"]
        return len(events), list(verify_events(events))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{path} is not an events.json of a bundle") from error


def _check_database() -> tuple[int, list[str]]:
    from service.audit import service

    require_schema()
    previous, size, fault = service.EMPTY_CHAIN, 0, None
    head, pages = _open_log()
    for page in pages:
        if page[0]["sequence"] != size + 1:
            return size, [f"the log has no event {size + 1}; events were taken out"]
        previous, fault = service.verify_chain(page, previous)
        if fault:
            return size, [fault]
        size = int(page[-1]["sequence"])
    if (size, previous) != (head["size"], head["chain_hash"]):
        return size, [f"the log ends at event {size}, its head says {head['size']}; events were taken off the end"]
    return size, []


def _open_log() -> tuple[dict[str, Any], Iterator[list[dict[str, Any]]]]:
    """The head, and pages of the events up to it: what is sealed meanwhile is left for the next run."""
    from service.audit import service
    from service.database import reading

    with reading() as session:
        head = service.checkpoint(session)

    def pages() -> Iterator[list[dict[str, Any]]]:
        after = 0
        while after < head["size"]:
            with reading() as session:
                page = service.sealed_events(session, after, min(_PAGE, head["size"] - after))
            if not page:
                return
            yield page
            after = page[-1]["sequence"]

    return head, pages()
