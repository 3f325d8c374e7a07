"""Which versions run here, told without importing torch."""

import runpy
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """Versions of DiSP, of torch and of the CUDA that torch was built for; empty where absent."""

    version: str
    torch: str
    cuda: str


def build_facts() -> Build:
    """Return what is installed."""
    return Build(_version("disp") or "unknown", _version("torch"), _cuda())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cuda() -> str:
    """Read torch's own record of its build: a file of plain assignments beside the package."""
    spec = find_spec("torch")
    record = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if record is None or not record.exists():
        return ""
    return str(runpy.run_path(str(record)).get("cuda") or "")
