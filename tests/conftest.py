"""Shapes in annotations are checked while tests run; torch keeps to one thread."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("disp_engine", f"{typecheck.__name__}.check")

pytest_plugins = ("tests.parts.fixtures",)
