"""`lethe models serve NAME`: the reference inference server."""

import socket
from typing import Annotated

import typer

command = typer.Typer(help="Run the reference inference server of a model.", add_completion=False)


@command.command()
def serve(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8100,
) -> None:
    """Answer POST /predict or POST /v1/completions with the version that is being served, until Ctrl-C.

    A newly published version is loaded in the background and takes over without dropping a request. A model that was
    registered with `--serve-precision` answers with weights rounded to it, simulated in float32.
    """
    from service.logs import configure_logging
    from service.settings import get_settings
    from workers.serving.pointer import read_pointer

    configure_logging(get_settings().log_level)
    # What is wrong with the name or the port is told before torch is loaded.
    read_pointer(name)
    with _listen(host, port) as listener:
        _run(name, host, listener)


def _listen(host: str, port: int) -> socket.socket:
    from service.errors import BadParameters

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadParameters(f"cannot listen on {host} port {port}: {error.strerror}; choose another") from error
    return listener


def _run(name: str, host: str, listener: socket.socket) -> None:
    import uvicorn

    from workers.serving.server import create_app, make_watcher

    watcher = make_watcher(name)
    number = watcher.current.number if watcher.current else None
    listener.listen(1024)  # who reads the line below can connect at once
    typer.echo(f"Serving {name} version {number} at http://{host}:{listener.getsockname()[1]} until Ctrl-C")
    config = uvicorn.Config(create_app(name, watcher), access_log=False, log_config=None)
    uvicorn.Server(config).run(sockets=[listener])
