"""A process that ends as by a power cut, just before one of its commits."""

import subprocess
import sys

DIED = 9
_PRELUDE = """
import os, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.orm import Session
left = int(sys.argv[1])

@event.listens_for(Session, "before_commit")
def die(_session):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
"""


def die_before_commit(number: int, code: str, *arguments: str) -> None:
    """Run `code` on the test's database in a process that dies at its commit `number`, counted from 1."""
    command = [sys.executable, "-c", _PRELUDE + code, str(number), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == DIED, done.stderr
