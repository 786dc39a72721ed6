"""`lethe keys`: API keys, straight in the database, audited as "local"."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.db import require_schema
from service.cli.output import AsJson, parse_span, print_json, print_table

command = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@command.command()
def create(
    role: Annotated[list[str], typer.Option(help="submitter, reviewer, auditor, operator or admin; may be repeated.")],
    name: Annotated[str, typer.Option(help="What or whom the key is for.")],
    expires: Annotated[str | None, typer.Option(help="Valid for this long: 12h, 90d ... ; absent: for ever.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    made = _create(name, role, expires)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"id {made['id']}, roles {', '.join(made['roles'])}; keep the key, it is shown once", err=True)


def _create(name: str, roles: list[str], expires: str | None) -> dict[str, Any]:
    from service.audit import service as audit
    from service.auth import service as auth
    from service.database import transaction

    valid_for = parse_span(expires) if expires is not None else None
    require_schema()
    with transaction() as session:
        key, text = auth.create_key(session, name, roles, valid_for)
        audit.record(session, "key.created", actor="local", ref=key.id, data={"roles": key.roles})
    return {
        "id": key.id,
        "key": text,
        "name": key.name,
        "roles": key.roles,
        "expires_at": audit.timestamp(key.expires_at) if key.expires_at else None,
    }


@command.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all keys, without their secrets."""
    from service.audit.service import timestamp
    from service.auth import service as auth
    from service.database import reading

    require_schema()
    with reading() as session:
        keys = auth.list_keys(session)
    items: list[dict[str, Any]] = [
        {
            "id": key.id,
            "name": key.name,
            "roles": key.roles,
            "created_at": timestamp(key.created_at),
            "expires_at": timestamp(key.expires_at) if key.expires_at else None,
            "revoked_at": timestamp(key.revoked_at) if key.revoked_at else None,
        }
        for key in keys
    ]
    if as_json:
        print_json({"items": items})
        return
    headers = ("id", "name", "roles", "created_at", "expires_at", "revoked_at")
    rows = [[item[key] if key != "roles" else ",".join(item["roles"]) for key in headers] for item in items]
    print_table(headers, rows, "There are no keys; make one with `lethe keys create`.")


@command.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a key useless; running services notice within a second."""
    from service.audit import service as audit
    from service.auth import service as auth
    from service.database import transaction

    require_schema()
    with transaction() as session:
        key = auth.revoke_key(session, key_id)
        audit.record(session, "key.revoked", actor="local", ref=key.id, data={})
    typer.echo(f"{key_id} is revoked.")


@command.command("ensure-admin")
def ensure_admin(file: Annotated[Path, typer.Option(help="Where the key is kept, with mode 0600.")]) -> None:
    """Make an admin key and write it to a file, unless the file holds a valid one."""
    require_schema()
    if _holds_valid_key(file):
        return
    text = _create("local administrator", ["admin"], None)["key"]
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)


def _holds_valid_key(file: Path) -> bool:
    from service.auth import service as auth
    from service.errors import Unauthorized

    try:
        return auth.verify(file.read_text("ascii").strip()).has(())
    except (OSError, UnicodeDecodeError, Unauthorized):
        return False
