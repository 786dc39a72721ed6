"""The API has no SciPy: every module of the verification loads without it."""

import pkgutil
import subprocess
import sys

from service import verification

NAMES = [f"service.verification.{module.name}" for module in pkgutil.iter_modules(verification.__path__)]


def loads(names: list[str]) -> bool:
    """Whether a fresh process without SciPy can import them."""
    imports = "; ".join(f"import {name}" for name in names)
    code = f"import sys; sys.modules['scipy'] = None; {imports}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_verification_loads_without_scipy() -> None:
    assert len(NAMES) > 10
    assert loads(NAMES)
    assert not loads(["scipy.stats"])
