"""Two transactions at once on PostgreSQL: one of them is seen waiting before the other goes on."""

import time
from threading import Thread

import psycopg

SECONDS = 30.0
_WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def until_blocked(database_url: str, thread: Thread) -> bool:
    """Wait until a transaction of this test's database waits for another; False where the thread ends without that."""
    end = time.monotonic() + SECONDS
    with psycopg.connect(database_url, autocommit=True) as connection:
        while thread.is_alive():
            row = connection.execute(_WAITING).fetchone()
            if row is not None and row[0]:
                return True
            assert time.monotonic() < end, "neither done nor waiting"
            time.sleep(0.01)
    return False
