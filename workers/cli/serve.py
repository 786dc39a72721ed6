"""`lethe models serve NAME`: the reference inference server."""

import typer

command = typer.Typer(help="Serve a model's current version and follow its pointer.", add_completion=False)


@command.command()
def serve(
    name: str = typer.Argument(help="the registered model"),
    host: str = typer.Option("127.0.0.1", help="address to listen on"),
    port: int = typer.Option(8100, min=1, max=65535, help="port to listen on"),
) -> None:
    """Answer POST /predict or POST /v1/completions with the version that is being served, until Ctrl-C.

    A newly published version is loaded in the background and takes over without dropping a request.
    """
    import uvicorn

    from service.logs import configure_logging
    from service.settings import get_settings
    from workers.serving.server import create_app, make_watcher

    configure_logging(get_settings().log_level)
    watcher = make_watcher(name)
    typer.echo(f"Serving {name} version {watcher.require().number} at http://{host}:{port} (Ctrl-C stops)")
    uvicorn.run(create_app(name, watcher), host=host, port=port, access_log=False, log_config=None)
