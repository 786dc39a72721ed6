"""Follows the serving pointer: loads a newly published version in the background, then swaps one reference.

A request takes `current` once and keeps it to its end, so requests in flight finish on the version they started with.
While a new version loads, the old one goes on answering. If it cannot be loaded, nothing answers: what was retired is
not served in its place.
"""

import gc
import threading
import weakref

import structlog
import torch
from sqlalchemy.exc import SQLAlchemyError

from service.errors import LetheError, Unavailable
from service.logs import describe
from workers.serving.loader import Served, load_served
from workers.serving.pointer import Pointer, read_pointer

POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Watcher:
    """Holds the version that answers. `start` loads the first one and raises what keeps it from being served."""

    def __init__(self, name: str, device: torch.device, poll_seconds: float = POLL_SECONDS) -> None:
        self._name, self._device, self._poll_seconds = name, device, poll_seconds
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch-pointer", daemon=True)
        self._current: Served | None = None
        self._trouble: LetheError | None = None
        self._retiring: list[weakref.ref[torch.nn.Module]] = []
        self._unreachable = False

    def start(self) -> None:
        """Load what is to be served, then watch. Raises NotFound, Conflict, Gone or BadModel."""
        self._current = load_served(read_pointer(self._name), self._device, self._lock)
        self._thread.start()

    def stop(self) -> None:
        """End the watching thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def current(self) -> Served | None:
        """The version that new requests are answered with; None while there is none."""
        return self._current

    def unavailable(self) -> Unavailable:
        """What to answer while there is none, with the reason."""
        reason = self._trouble.detail if self._trouble else "no version is loaded"
        return Unavailable(f"model {self._name!r} is not served: {reason}")

    @property
    def retiring(self) -> int:
        """How many replaced versions are still in memory: those with requests in flight."""
        return len(self._retiring)

    def _run(self) -> None:
        pause = self._poll_seconds
        while not self._stop.wait(pause):
            pause = self._poll_seconds if self._look() else _RETRY_SECONDS
            self._release()

    def _look(self) -> bool:
        """One look at the pointer; False where the next one can wait."""
        try:
            pointer = read_pointer(self._name)
            if self._current is None or _served_as(pointer) != _served_as(self._current.pointer):
                self._swap(load_served(pointer, self._device, self._lock))
            self._unreachable = False
        except LetheError as error:
            self._withdraw(error)
            return False
        except SQLAlchemyError as error:
            # What the database last said still holds as far as anybody knows; once per outage is enough to say.
            if not self._unreachable:
                log.warning("serving.database_unreachable", exception=describe(error))
            self._unreachable = True
        except Exception as error:  # noqa: BLE001 - whatever happens, this thread lives: else an old version would serve on
            log.error("serving.failed", model=self._name, exception=describe(error))  # noqa: TRY400 - described above
            self._withdraw(Unavailable("the serving version could not be loaded; the server tries again"))
            return False
        return True

    def _swap(self, served: Served | None) -> None:
        old, self._current = self._current, served
        self._trouble = None
        if old is not None:
            self._retiring.append(weakref.ref(old.loaded.model))
        if served is not None:
            log.info("serving.switched", model=self._name, version=served.number, digest=served.pointer.digest)

    def _withdraw(self, error: LetheError) -> None:
        if self._trouble is None or self._trouble.detail != error.detail:
            log.error("serving.withdrawn", model=self._name, reason=error.detail)
        self._swap(None)
        self._trouble = error

    def _release(self) -> None:
        """Free replaced weights. Models refer to themselves in circles, so counting references is not enough."""
        if not self._retiring:
            return
        gc.collect()
        self._retiring = [reference for reference in self._retiring if reference() is not None]
        if not self._retiring and self._device.type == "cuda":
            torch.cuda.empty_cache()


def _served_as(pointer: Pointer) -> tuple[str, str]:
    return pointer.version_id, pointer.precision
