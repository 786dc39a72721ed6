"""From an exception to a stored cause of failure: one line and a stable code, without anybody's data."""

import errno
import re

from service.errors import DiskFull, JobError, LetheError, OutOfMemory

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ALLOCATION = "DefaultCPUAllocator: can't allocate memory"


def cause_of(error: BaseException) -> JobError:
    """The stored cause of failure: one line and a stable code. Messages of unknown errors may hold data, so only
    their type is kept."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, LetheError):
        return JobError(error.detail)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _ALLOCATION in str(error):
        return OutOfMemory("the worker ran out of memory; the serving version is untouched, retry on a larger worker")
    if _errno(error) in _NO_SPACE:
        return DiskFull("no space left under LETHE_HOME; free some and retry, the serving version is untouched")
    return JobError(f"unexpected {type(error).__name__}; the worker's log has the trace")


def _errno(error: BaseException) -> int | None:
    """The system's error number, also where a library only mentions it in its message (safetensors)."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
