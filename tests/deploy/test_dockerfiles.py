import json
import subprocess

import pytest

from tests.deploy.names import assert_command_exists
from tests.deploy.tools import ROOT, program

DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_of_dockerfiles_has_no_objection(path):
    ended = subprocess.run([program("hadolint"), path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_a_command_of_ours_and_not_as_root(path):
    lines = path.read_text().splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user == "10001:10001"
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    assert_command_exists(json.loads(command))


def test_everything_that_is_installed_goes_into_the_build_and_nothing_else():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        name.removesuffix("*")
        for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert kept == packages | {"pyproject.toml", "README.md"}
