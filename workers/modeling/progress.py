"""Progress of work made of parts: each part tells its own 0 to 1, the whole where it stands and how long it takes."""

import time
from dataclasses import replace

from workers.modeling.problem import Context, Progress


def part_of(context: Context, start: float, end: float, message: str) -> Context:
    """The same context, whose progress from 0 to 1 is told as `start` to `end` of something larger."""

    def told(progress: Progress) -> None:
        fraction = start + progress.fraction * (end - start)
        context.progress(Progress(fraction, None, f"{message}, {progress.message}", progress.metrics))

    return replace(context, progress=told)


def timed(context: Context, start: float = 0.0) -> Context:
    """The same context, which adds the seconds left, judged by what it took to come here from `start`."""
    began = time.monotonic()

    def told(progress: Progress) -> None:
        gone = progress.fraction - start
        left = (time.monotonic() - began) / gone * (1.0 - progress.fraction) if gone > 0 else None
        context.progress(replace(progress, eta_seconds=left))

    return replace(context, progress=told)
