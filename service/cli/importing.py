"""Files of many requests, sent in batches that a service accepts."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.cli.client import Client
from service.errors import BadParameters

_LINES = 500
_BYTES = 900_000

_COLUMNS = ("regulation", "type", "value", "format", "models", "received_at", "external_id", "callback_url", "note")

Body = tuple[int, str]


def read_bodies(file: Path) -> list[Body]:
    """One JSON text a request, with its line in the file, or its place in a JSON array, from 1.

    A line that is not JSON is sent as it is: the service says what is wrong with it.

    CSV columns: regulation, type, value, and if wanted format, models (separated by semicolons), received_at,
    external_id, callback_url, note. Raises BadParameters.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameters(f"{file}: cannot be read ({type(error).__name__})") from None
    if file.suffix.lower() == ".csv":
        try:
            return [(number, json.dumps(body)) for number, body in _from_csv(file, text)]
        except csv.Error as error:
            raise BadParameters(f"{file}: not valid CSV ({error})") from None
    if text.lstrip().startswith("["):
        try:
            return [(number, json.dumps(body)) for number, body in enumerate(json.loads(text), 1)]
        except ValueError:
            raise BadParameters(f"{file}: not valid JSON") from None
    # Not `splitlines`: it also ends a line at characters that JSON strings may hold, such as U+2028.
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _from_csv(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found = reader.fieldnames or []
    for name in ("regulation", "type", "value"):
        if name not in found:
            raise BadParameters(f"{file}: no column {name!r}; columns are {', '.join(_COLUMNS)}")
    unknown = sorted(set(found) - set(_COLUMNS))
    if unknown:
        raise BadParameters(f"{file}: unknown column {unknown[0]!r}; columns are {', '.join(_COLUMNS)}")
    for row in reader:
        # The reader has counted to the row's last line; a quoted value may hold ends of lines.
        start = reader.line_num - sum(value.count("\n") for value in row.values() if isinstance(value, str))
        given = {name: value.strip() for name, value in row.items() if name and value and value.strip()}
        identifier = {key: given.pop(key) for key in ("type", "value", "format") if key in given}
        body: dict[str, Any] = given | {"subject": {"identifiers": [identifier] if identifier else []}}
        if "models" in body:
            body["models"] = [name.strip() for name in body["models"].split(";") if name.strip()]
        yield start, body


def send_bodies(client: Client, path: str, bodies: list[Body], file: Path, key: str | None) -> list[dict[str, Any]]:
    """Send in batches; the answer has a result for each body, with its line in the file. Raises BadParameters.

    The default key comes from the content, so that sending a file again after a broken connection repeats nothing.
    """
    base = key or client.token_for("\n".join(text for _, text in bodies))
    results: list[dict[str, Any]] = []
    for number, batch in enumerate(_batches(bodies)):
        headers = {"idempotency-key": f'"{base}-{number}"'}
        response = client.post_lines(path, "\n".join(text for _, text in batch).encode(), headers)
        for line in response.text.splitlines():
            result = json.loads(line)
            results.append(result | {"line": batch[result["line"] - 1][0]})
    if not results:
        raise BadParameters(f"{file}: holds no requests")
    return results


def _batches(bodies: list[Body]) -> Iterator[list[Body]]:
    batch: list[Body] = []
    size = 0
    for number, text in bodies:
        length = len(text.encode()) + 1
        if batch and (len(batch) == _LINES or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, text))
        size += length
    if batch:
        yield batch
