"""Files of many requests, sent in batches that a service accepts."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.cli.client import Client
from service.errors import BadParameters

_LINES = 500
_BYTES = 900_000

_COLUMNS = ("regulation", "type", "value", "format", "models", "received_at", "external_id", "callback_url", "note")


def read_bodies(file: Path) -> list[str]:
    """One JSON text a request. A line that is not JSON is sent as it is: the service says what is wrong with it.

    CSV columns: regulation, type, value, and if wanted format, models (separated by semicolons), received_at,
    external_id, callback_url, note. Raises BadParameters.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameters(f"{file}: cannot be read ({type(error).__name__})") from None
    if file.suffix.lower() == ".csv":
        return [json.dumps(body) for body in _from_csv(file, text)]
    if text.lstrip().startswith("["):
        try:
            return [json.dumps(body) for body in json.loads(text)]
        except ValueError:
            raise BadParameters(f"{file}: not valid JSON") from None
    return [line for line in text.splitlines() if line.strip()]


def _from_csv(file: Path, text: str) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines())
    found = reader.fieldnames or []
    for name in ("regulation", "type", "value"):
        if name not in found:
            raise BadParameters(f"{file}: no column {name!r}; columns are {', '.join(_COLUMNS)}")
    unknown = sorted(set(found) - set(_COLUMNS))
    if unknown:
        raise BadParameters(f"{file}: unknown column {unknown[0]!r}; columns are {', '.join(_COLUMNS)}")
    for row in reader:
        given = {name: value.strip() for name, value in row.items() if name and value and value.strip()}
        identifier = {key: given.pop(key) for key in ("type", "value", "format") if key in given}
        body: dict[str, Any] = given | {"subject": {"identifiers": [identifier] if identifier else []}}
        if "models" in body:
            body["models"] = [name.strip() for name in body["models"].split(";") if name.strip()]
        yield body


def send_bodies(client: Client, path: str, bodies: list[str], file: Path, key: str | None) -> list[dict[str, Any]]:
    """Send in batches; the answer has a result for each body, counted through the file.

    The default key comes from the content, so that sending a file again after a broken connection repeats nothing.
    """
    base = key or client.token_for("\n".join(bodies))
    results: list[dict[str, Any]] = []
    for number, batch in enumerate(_batches(bodies)):
        headers = {"idempotency-key": f'"{base}-{number}"'}
        response = client.post_lines(path, "\n".join(batch).encode(), headers)
        start = len(results)
        for line in response.text.splitlines():
            result = json.loads(line)
            results.append(result | {"line": start + result["line"]})
    if not results:
        raise BadParameters(f"{file}: holds no requests")
    return results


def _batches(bodies: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for body in bodies:
        length = len(body.encode()) + 1
        if batch and (len(batch) == _LINES or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield batch
