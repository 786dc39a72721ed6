"""Device choice and everything that makes a run repeat itself: seeds, threads, deterministic kernels."""

import os
import random
import warnings

import numpy as np
import torch

from service.errors import BadParameters


def resolve_device(name: str) -> torch.device:
    """A torch device from a setting: "auto" takes the first GPU where there is one, else the CPU.

    Raises BadParameters for a name torch does not know and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadParameters(f"device {name!r} is unknown: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadParameters(f"device {name!r} is not present: {torch.cuda.device_count()} CUDA devices found")
    if device.type not in ("cpu", "cuda"):
        raise BadParameters(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    return device


def seed_everything(seed: int, threads: int) -> None:
    """Fix every random source and the thread count, and ask for deterministic kernels.

    The same seed, thread count, build and CPU model give the same bits; on CUDA a kernel without a deterministic
    form still runs.
    """
    # cuBLAS reads it when its handle is made, so it has to be there before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)


def generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU generator for one purpose (`stream`), independent of the global one and of other purposes."""
    words = np.random.SeedSequence([seed, *stream]).generate_state(2, np.uint64)
    made = torch.Generator()
    made.manual_seed(int(words[0]) & 0x7FFF_FFFF_FFFF_FFFF)
    return made
