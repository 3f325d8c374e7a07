"""Names of the tasks that travel over the broker; a message carries a job id and nothing more."""

PURIFY = "disp.defense.purify"
HELP = "disp.defense.help"
QUEUE = "disp.gpu"
KEY_PREFIX = "disp:"
"""Before every key in the broker; both ends must agree on it."""
