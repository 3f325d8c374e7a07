"""Names of the tasks that travel over the broker; a message carries a job id or nothing at all."""

PURIFY = "disp.defense.purify"
DELIVER = "disp.webhooks.deliver"
HELP = "disp.defense.help"
QUEUE = "disp.gpu"
IO_QUEUE = "disp.io"
KEY_PREFIX = "disp:"
"""Before every key in the broker; both ends must agree on it."""
