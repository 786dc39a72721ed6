"""`lethe report verify`: check an evidence bundle offline."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import AsJson, print_json
from service.errors import Invalid

command = typer.Typer(help="Check evidence bundles.", no_args_is_help=True)


@command.callback()
def report() -> None:
    """Check evidence bundles."""


@command.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.zip", help="the bundle, from /report/bundle")],
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the service's key as it reached you another way than the bundle")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check signature, digests, log and verdict with nothing but the bundle; exit 0 verified, 1 not, 2 bad usage."""
    from service.reports.signing import load_public_key
    from service.reports.verify import verify_bundle

    content = _read(bundle, "the bundle")
    trusted = load_public_key(_read(public_key, "the public key"), str(public_key)) if public_key else None
    result = verify_bundle(content, trusted)
    if as_json:
        print_json(result.as_dict())
    else:
        for finding in result.findings:
            typer.echo(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.check:<10} {finding.detail}")
        typer.echo("verified" if result.ok else "NOT VERIFIED")
    if not result.ok:
        raise typer.Exit(1)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"{what} {path} cannot be read: {error.strerror}") from error
