"""Which end of a list comes first."""

from typing import Literal

Order = Literal["asc", "desc"]
