"""Shapes in annotations are checked while tests run; torch keeps to one thread.

The profile of hypothesis called `long` asks for more, and other, cases where a test has many.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings
from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("disp_engine", f"{typecheck.__name__}.check")

settings.register_profile("long", deadline=None, print_blob=True)  # `make fuzz`

pytest_plugins = ("tests.parts.fixtures",)
