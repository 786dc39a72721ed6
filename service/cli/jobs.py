"""`lethe jobs`: what the service is doing and what a reviewer decides on it, over HTTP (LETHE_URL, LETHE_API_KEY)."""

from typing import Annotated, Any

import typer

from service.cli.output import AsJson, print_json, print_table

command = typer.Typer(help="List and follow unlearning jobs; review their publications.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]
Number = Annotated[int, typer.Option(min=1, help="Number of the attempt, as `lethe jobs show` lists it.")]

_FINAL = ("completed", "failed", "cancelled")
_PATH = "/v1/jobs"


@command.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="queued, running, completed, failed or cancelled.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of a model.")] = None,
    waiting: Annotated[
        str | None, typer.Option(metavar="DECISION", help="Needs a reviewer's approval, release, or any of them.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from service.cli.client import open_client

    with open_client() as client:
        page = client.get(_PATH, status=status, model=model, waiting=waiting, limit=limit)
    if as_json:
        print_json(page)
        return
    columns = ("id", "model", "status", "stage", "waits_for", "verdict", "days_left")
    rows = [[_waits_for(item) if name == "waits_for" else item[name] for name in columns] for item in page["items"]]
    print_table(columns, rows, "There are no jobs.")


def _waits_for(job: dict[str, Any]) -> str | None:
    """Who the job waits for; a failed one whose attempts can be released needs a reviewer, too."""
    waits_for: str | None = job["waits_for"]
    offered = job["releasable"]
    return f"reviewer (release {', '.join(map(str, offered['attempts']))})" if offered else waits_for


@command.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job with its attempts, what it waits for and what can be released."""
    from service.cli.client import open_client

    with open_client() as client:
        _show(client.get(f"{_PATH}/{job_id}"), as_json)


@command.command()
def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit 0: completed; 1: failed or cancelled."""
    from service.cli.client import open_client
    from service.cli.watching import follow

    with open_client() as client:
        job = follow(client, f"{_PATH}/{job_id}", _FINAL)
    _show(job, as_json)
    if job["status"] != "completed":
        raise typer.Exit(1)


@command.command()
def release(
    job_id: JobId,
    attempt: Number,
    reason: Annotated[str, typer.Option(help="10 to 2000 characters; printed in every report: name nobody.")],
    as_json: AsJson = False,
) -> None:
    """Publish an attempt of a failed job that the gate left inconclusive, where the policy allows it."""
    _review(job_id, "release", {"attempt": attempt, "reason": reason}, as_json)


@command.command()
def approve(job_id: JobId, attempt: Number, as_json: AsJson = False) -> None:
    """Let a job publish the attempt that passed, where the policy makes it wait for a reviewer."""
    _review(job_id, "approve-publication", {"attempt": attempt}, as_json)


def _review(job_id: str, action: str, body: dict[str, Any], as_json: bool) -> None:
    from service.cli.client import open_client

    with open_client() as client:
        _show(client.post(f"{_PATH}/{job_id}/{action}", body), as_json)


def _show(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    typer.echo(f"{job['id']}  {job['model']}  {job['status']} ({job['stage']})")
    if job["due_at"]:
        typer.echo(f"due {job['due_at']} ({job['days_left']} days left)")
    if job["waits_for"]:
        typer.echo(f"waits for a {job['waits_for']}")
    if job["error"]:
        typer.echo(f"error: {job['error']['detail']}")
    for attempt in job["attempts"]:
        verdict = f", verdict {attempt['verdict']}" if attempt["verdict"] else ""
        typer.echo(f"  attempt {attempt['number']}: {attempt['method']}, {attempt['state']}{verdict}")
    if job["releasable"]:
        numbers = ", ".join(str(number) for number in job["releasable"]["attempts"])
        typer.echo(f"a reviewer may release attempt {numbers} until {job['releasable']['until']}")
    if job["review"]:
        review = job["review"]
        typer.echo(f"attempt {review['attempt']} {review['kind']} by {review['key_id']} at {review['at']}")
