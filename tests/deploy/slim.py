"""A Python that sees only what an image has: our base dependencies, those of extras, and theirs."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

from tests.deploy.tools import ROOT

SITECUSTOMIZE = """
from importlib.machinery import PathFinder

HIDDEN = {hidden!r}
find = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else find(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
"""


def distributions_with(extras: Iterable[str]) -> set[str]:
    """The names of all distributions that `pip install .` brings with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    wanted = [project["optional-dependencies"][extra] for extra in extras]
    waiting = [Requirement(text) for text in chain(project["dependencies"], *wanted)]
    while waiting:
        requirement = waiting.pop()
        name = plain(requirement.name)
        extras = sorted(requirement.extras) or [""]
        for extra in extras:
            if f"{name}[{extra}]" in found:
                continue
            found |= {name, f"{name}[{extra}]"}
            waiting += [r for r in _needs(requirement.name) if _applies(r, extra)]
    return found


def write_sitecustomize(folder: Path, *extras: str) -> set[str]:
    """Put the blind spot into `folder`, for PYTHONPATH; return the hidden modules."""
    base = distributions_with(extras) | {"disp", "pip", "setuptools"}
    hidden = {
        module
        for module, distributions in packages_distributions().items()
        if not any(plain(name) in base for name in distributions)
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(hidden=sorted(hidden)))
    return hidden


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:  # behind a marker that does not hold here
        return []


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
