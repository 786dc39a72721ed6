"""The rows that one accepted request leaves, as plain SQL: what the bare endpoint and pgbench write.

One source for both, so that all three contenders do the same work in the database. `{name}` is replaced by a
placeholder of psycopg or by an SQL expression of pgbench.
"""

from collections.abc import Mapping

MODEL_ID = "mod_benchmark"
MODEL_NAME = "benchmark"

_REQUEST = """
INSERT INTO deletion_requests (id, status, regulation, submitted_by, pseudonym, sealed, data_key, cancellable,
  progress, attempts, created_at, received_at, acknowledged_at, due_at)
VALUES ({request}, 'accepted', 'gdpr', 'key_benchmark', {pseudonym}, {sealed}, {data_key}, true,
  0.0, 0, {now}, {now}, {now}, {due})
"""
_TARGET = """
INSERT INTO request_targets (id, request_id, model_id, model_name)
VALUES ({target}, {request}, 'mod_benchmark', 'benchmark')
"""
_SUPPRESSION = """
INSERT INTO suppression_entries (id, pseudonym, request_id, created_at)
VALUES ({suppression}, {pseudonym}, {request}, {now})
"""
_EVENT = """
INSERT INTO audit_events (id, kind, at, actor, ref, data)
VALUES ({event}, 'request.accepted', {now}, 'key_benchmark', {request},
  '{{"regulation": "gdpr", "models": ["mod_benchmark"], "identifier_types": ["email"],
     "due_at": "2030-01-01T00:00:00+00:00"}}')
"""
_MESSAGE = """
INSERT INTO outbox (id, topic, ref, created_at, not_before, attempts)
VALUES ({message}, 'request.accepted', 'mod_benchmark', {now}, {now}, 0)
"""
_STATEMENTS = (_REQUEST, _TARGET, _SUPPRESSION, _EVENT, _MESSAGE)
_IDS = ("request", "target", "suppression", "event", "message")
_NAMES = (*_IDS, "pseudonym", "sealed", "data_key", "now", "due")


def psycopg_statements() -> tuple[str, ...]:
    """The statements with named placeholders of psycopg."""
    return _filled({name: f"%({name})s" for name in _NAMES})


def pgbench_script() -> str:
    """One transaction with the same statements; ids are random numbers padded to the length of ours."""
    values = {name: f"'{name[:3]}_' || lpad(CAST(:n AS text), 26, '0')" for name in _IDS}
    values |= {
        "pseudonym": "repeat('0', 44) || lpad(CAST(:n AS text), 20, '0')",
        "sealed": "decode(repeat('5a', 110), 'hex')",
        "data_key": "decode(repeat('5a', 60), 'hex')",
        "now": "now()",
        "due": "now() + interval '1 month'",
    }
    body = "".join(f"{statement};\n" for statement in _filled(values))
    return f"\\set n random(1, 9000000000000000000)\nBEGIN;\n{body}COMMIT;\n"


def _filled(values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(" ".join(statement.format(**values).split()) for statement in _STATEMENTS)
