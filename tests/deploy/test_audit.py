from pathlib import Path

from packaging.version import Version

from tests.audit import Advisory, advisories, faults, requirements

KNOWN = [Advisory("pillow", Version("12.2.0"), "CVE-1", "a bomb")]


def test_a_package_before_the_fix_is_found_where_it_is_installed_and_where_it_is_allowed() -> None:
    old, new = {"pillow": Version("12.1.9")}, {"pillow": Version("12.2")}
    assert list(faults(KNOWN, new, new)) == []
    assert ["installed" in line for line in faults(KNOWN, old, new)] == [True]
    assert ["allows" in line for line in faults(KNOWN, new, old)] == [True]
    assert list(faults(KNOWN, {}, {})) == []


def test_bounds_are_read_from_the_project_with_all_its_extras(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\ndependencies = ["PyYAML>=6"]\n[project.optional-dependencies]\n'
        'engine = ["torch>=2.7,<3"]\ncheck = ["types-PyYAML"]\n'
    )
    found = {"pyyaml": Version("6"), "torch": Version("2.7"), "types-pyyaml": None}
    assert requirements(path) == found


def test_what_the_service_itself_needs_has_a_least_version() -> None:
    unbounded = {name for name, least in requirements().items() if least is None}
    assert unbounded <= {"types-pyyaml"}
    assert len(advisories()) >= 20
