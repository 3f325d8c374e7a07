"""Holds what is installed or allowed against known advisories: `python -m tests.audit`.

It needs no network, and knows only what `tests/advisories.yaml` tells; see there.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ADVISORIES = Path(__file__).with_name("advisories.yaml")


@dataclass(frozen=True)
class Advisory:
    """A fault that releases before `fixed` have."""

    package: str
    fixed: Version
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.id} ({self.what}), fixed in {self.package} {self.fixed}"


def advisories() -> list[Advisory]:
    """What is known."""
    found = yaml.safe_load(ADVISORIES.read_text())["advisories"]
    return [Advisory(a["package"], Version(str(a["fixed"])), a["id"], a["what"]) for a in found]


def installed() -> dict[str, Version]:
    """The packages of this environment."""
    return {
        canonicalize_name(found.metadata["Name"]): Version(found.version)
        for found in distributions()
    }


def requirements(project: Path = ROOT / "pyproject.toml") -> dict[str, Version | None]:
    """The least version that each requirement of the project allows."""
    table = tomllib.loads(project.read_text())["project"]
    listed = [*table["dependencies"], *chain(*table["optional-dependencies"].values())]
    return {canonicalize_name(r.name): _least(r) for r in map(Requirement, listed)}


def faults(
    known: list[Advisory],
    present: Mapping[str, Version],
    allowed: Mapping[str, Version | None],
) -> Iterator[str]:
    """What is installed with a known fault, or may be."""
    for advisory in known:
        version = present.get(advisory.package)
        if version is not None and version < advisory.fixed:
            yield f"{advisory.package} {version} is installed: {advisory}"
        least = allowed.get(advisory.package)
        if least is not None and least < advisory.fixed:
            yield f"pyproject.toml allows {advisory.package} {least}: {advisory}"


def main() -> int:
    """Print what is wrong; returns how the process ends."""
    found = list(faults(advisories(), installed(), requirements()))
    for line in found:
        print(line, file=sys.stderr)
    reviewed = yaml.safe_load(ADVISORIES.read_text())["reviewed"]
    print(f"audit: {len(advisories())} advisories (reviewed {reviewed}), {len(found)} faults")
    return 1 if found else 0


def _least(requirement: Requirement) -> Version | None:
    bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
    return max(map(Version, bounds), default=None)


if __name__ == "__main__":
    sys.exit(main())
