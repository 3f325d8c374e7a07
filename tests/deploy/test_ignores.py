import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "benchmarks", "client", "disp_engine", "schemas", "storage", "tests", "workers")
_CODES = re.compile(r'"[A-Z]+[0-9]+"')


def without_reason() -> Iterator[str]:
    """Places where a rule is switched off and nothing is said."""
    paths = {path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    for path in sorted(paths - {Path(__file__)}):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            _, mark, told = line.partition("# noqa")
            if mark and not re.match(r": [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*[ -]+\w+", told):
                yield f"{path.relative_to(ROOT)}:{number}"
    lint = (ROOT / "pyproject.toml").read_text().partition("[tool.ruff.lint]")[2]
    for line in lint.partition("[tool.mypy]")[0].splitlines():
        if _CODES.search(line) and "#" not in line:
            yield f"pyproject.toml: {line.strip()}"


def test_each_rule_that_is_switched_off_has_its_reason() -> None:
    assert list(without_reason()) == []
