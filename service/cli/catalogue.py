"""`lethe methods` and `lethe metrics`: the catalogue."""

import typer

from service.cli.output import AsJson, print_json, print_table

methods = typer.Typer(help="List the unlearning methods.")
metrics = typer.Typer(help="List the measurements.")


@methods.command()
def list_methods(as_json: AsJson = False) -> None:
    """List the unlearning methods, what they need and their parameters."""
    from service.registry.catalogue import list_methods as read

    listed = read()
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            item["name"],
            item["kind"],
            ",".join(item["needs"]) or "-",
            ",".join(item["parameters"].get("properties", {})) or "-",
            item["summary"],
        )
        for item in listed["items"]
    ]
    print_table(("name", "kind", "needs", "parameters", "summary"), rows, "There are no methods.")


@metrics.command()
def list_metrics(as_json: AsJson = False) -> None:
    """List the measurements, their role and what they need."""
    from service.registry.catalogue import list_metrics as read

    listed = read()
    if as_json:
        print_json(listed)
        return
    rows = [
        (item["name"], item["role"], item["direction"], ",".join(item["needs"]) or "-", item["summary"])
        for item in listed["items"]
    ]
    print_table(("name", "role", "direction", "needs", "summary"), rows, "There are no metrics.")
