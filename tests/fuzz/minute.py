"""What the tests give each reader; one file of theirs has the readers of one kind of thing, so that
processes which share the tests by file share this time."""

import os

from tests.fuzz.campaign import Campaign

SECONDS = float(os.environ.get("DISP_FUZZ_SECONDS", "60"))
"""Of processor time."""


def spend_a_minute(reader: str) -> None:
    """A campaign from what longer ones have kept; fails where it finds a fault, or nothing."""
    campaign = Campaign(reader)
    campaign.run(SECONDS, first=0)
    assert campaign.accepted > 0 and campaign.reasons
