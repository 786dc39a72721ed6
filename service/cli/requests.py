"""`lethe requests`: a client of the HTTP API (LETHE_URL, LETHE_API_KEY)."""

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.output import AsJson, print_json, print_table
from service.errors import BadParameters

command = typer.Typer(help="Create, follow and list deletion requests over HTTP.", no_args_is_help=True)

RequestId = Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")]

_FINAL = ("completed", "failed", "rejected", "cancelled")
_PATH = "/v1/deletion-requests"


@command.command()
def create(
    regulation: Annotated[str, typer.Option(help="gdpr or ccpa.")],
    subject: Annotated[
        list[str],
        typer.Option(help="type:value or type:sha256:digest; may be repeated; - reads lines from standard input."),
    ],
    model: Annotated[list[str] | None, typer.Option(help="Name of a model; may be repeated; absent: all.")] = None,
    received_at: Annotated[str | None, typer.Option(help="RFC 3339 time of receipt; absent: now.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Your own number for it.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Told when the request has ended.")] = None,
    note: Annotated[str | None, typer.Option(help="Kept sealed, destroyed with the identifiers.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Absent: a new one.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a deletion request."""
    from service.cli.client import open_client

    body = {
        "regulation": regulation,
        "subject": {"identifiers": [parse_subject(text) for text in _subjects(subject)]},
        "models": model or None,
        "received_at": received_at,
        "external_id": external_id,
        "callback_url": callback_url,
        "note": note,
    }
    sent = {name: value for name, value in body.items() if value is not None}
    key = idempotency_key or uuid.uuid4().hex
    with open_client() as client:
        request = client.post(_PATH, sent, {"idempotency-key": f'"{key}"'})
    if watch:
        typer.echo(request["id"], err=True)
        _follow(request["id"], as_json)
        return
    _show(request, as_json)


def _subjects(given: list[str]) -> list[str]:
    if "-" not in given:
        return given
    read = [line.strip() for line in sys.stdin if line.strip()]
    return [text for text in given if text != "-"] + read


def parse_subject(text: str) -> dict[str, str]:
    """`type:value`, or `type:sha256:digest` (also sha1, md5). Raises BadParameters without quoting the value."""
    kind, colon, value = text.partition(":")
    if not (colon and kind.strip() and value.strip()):
        raise BadParameters("--subject: write it as type:value, such as email:jane@example.org")
    form, colon, digest = value.partition(":")
    if colon and form in ("sha256", "sha1", "md5"):
        return {"type": kind.strip(), "value": digest.strip(), "format": form}
    return {"type": kind.strip(), "value": value.strip()}


@command.command()
def show(request_id: RequestId, as_json: AsJson = False) -> None:
    """Show one request with its targets and history."""
    from service.cli.client import open_client

    with open_client() as client:
        _show(client.get(f"{_PATH}/{request_id}"), as_json)


@command.command("list")
def list_(
    status: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    regulation: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    due_before: Annotated[str | None, typer.Option(help="RFC 3339 time.")] = None,
    external_id: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    from service.cli.client import open_client

    filters = {"status": status or None, "regulation": regulation, "model": model}
    filters |= {"due_before": due_before, "external_id": external_id}
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    with open_client() as client:
        while len(items) < limit:
            page = client.get(_PATH, **filters, cursor=cursor, limit=min(200, limit - len(items)))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if as_json:
        print_json({"items": items, "next_cursor": cursor})
        return
    rows = [
        (item["id"], item["status"], item["regulation"], item["due_at"], item["days_left"], item["external_id"])
        for item in items
    ]
    print_table(("id", "status", "regulation", "due_at", "days_left", "external_id"), rows, "There are no requests.")


@command.command()
def watch(request_id: RequestId, as_json: AsJson = False) -> None:
    """Follow a request to its end. Exit 0: completed; 1: failed, rejected or cancelled."""
    _follow(request_id, as_json)


def _follow(request_id: str, as_json: bool) -> None:
    from service.cli.client import open_client
    from service.cli.watching import follow

    with open_client() as client:
        request = follow(client, f"{_PATH}/{request_id}", _FINAL)
    _show(request, as_json)
    if request["status"] != "completed":
        raise typer.Exit(1)


@command.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="NDJSON, a JSON array, or CSV with a header.")],
    idempotency_key: Annotated[str | None, typer.Option(help="Absent: made from the file's content.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send many requests. Exit 1 when a line was refused; the others are accepted all the same."""
    from service.cli.client import open_client
    from service.cli.importing import read_bodies, send_bodies

    with open_client() as client:
        results = send_bodies(client, f"{_PATH}:batch", read_bodies(file), file, idempotency_key)
    refused = [result for result in results if result["status"] >= 400]
    if as_json:
        print_json({"items": results})
    else:
        for result in refused:
            typer.echo(f"line {result['line']}: {result['error']['detail']}", err=True)
        typer.echo(f"{len(results) - len(refused)} accepted, {len(refused)} refused")
    if refused:
        raise typer.Exit(1)


@command.command()
def cancel(request_id: RequestId, as_json: AsJson = False) -> None:
    """Withdraw a request; possible until its result is being published."""
    _act(request_id, "cancel", None, as_json)


@command.command()
def retry(request_id: RequestId, as_json: AsJson = False) -> None:
    """Let a failed request be taken up again."""
    _act(request_id, "retry", None, as_json)


@command.command()
def approve(request_id: RequestId, as_json: AsJson = False) -> None:
    """Let a pending request go on."""
    _act(request_id, "approve", None, as_json)


@command.command()
def reject(request_id: RequestId, reason: Annotated[str, typer.Option()], as_json: AsJson = False) -> None:
    """Refuse a pending request."""
    _act(request_id, "reject", {"reason": reason}, as_json)


@command.command()
def extend(request_id: RequestId, reason: Annotated[str, typer.Option()], as_json: AsJson = False) -> None:
    """Take the one extension of the deadline."""
    _act(request_id, "extend", {"reason": reason}, as_json)


def _act(request_id: str, action: str, body: dict[str, str] | None, as_json: bool) -> None:
    from service.cli.client import open_client

    with open_client() as client:
        _show(client.post(f"{_PATH}/{request_id}/{action}", body), as_json)


def _show(request: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(request)
        return
    typer.echo(f"{request['id']}  {request['status']}" + (f" ({request['stage']})" if request["stage"] else ""))
    typer.echo(f"due {request['due_at']} ({request['days_left']} days left, {request['regulation']})")
    if request["reason"]:
        typer.echo(f"reason: {request['reason']}")
    for target in request["targets"]:
        typer.echo("  " + _target_line(target))
    for event in request.get("history") or []:
        typer.echo(f"  {event['at']}  {event['kind']}")


def _target_line(target: dict[str, Any]) -> str:
    if target["outcome"] is None:
        return f"{target['model']}: open" + (f", job {target['job_id']}" if target["job_id"] else "")
    if target["outcome"] != "published":
        return f"{target['model']}: {target['outcome'].replace('_', ' ')}"
    versions = f"version {target['base_version']} -> {target['new_version']}"
    return f"{target['model']}: {target['outcome']}, {versions}, verdict {target['verdict']}, grade {target['grade']}"
