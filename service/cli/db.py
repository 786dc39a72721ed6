"""`lethe db`: the schema of the database."""

import typer

from service.cli.output import AsJson, print_json
from service.errors import Unavailable

command = typer.Typer(help="Migrate the database.", no_args_is_help=True)


@command.command()
def upgrade() -> None:
    """Bring the database to the newest schema; safe to repeat, and while others do the same."""
    from service import database

    database.upgrade()
    typer.echo("The database has the newest schema.")


@command.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the database has the newest schema."""
    from service import database

    current = database.at_head()
    if as_json:
        print_json({"current": current})
    else:
        typer.echo("The database has the newest schema." if current else "The schema is old; run `lethe db upgrade`.")
    if not current:
        raise typer.Exit(1)


def require_schema() -> None:
    """Make sure that the schema is there: the embedded database is migrated in passing, a shared one is not."""
    from sqlalchemy.exc import SQLAlchemyError

    from service import database
    from service.settings import get_settings

    try:
        if database.at_head():
            return
    except SQLAlchemyError as error:
        raise Unavailable(
            f"the database cannot be reached ({type(error).__name__}); check LETHE_DATABASE_URL"
        ) from None
    if not get_settings().database_url.startswith("sqlite"):
        raise Unavailable("the database schema is not the newest; run `lethe db upgrade`")
    database.upgrade()
