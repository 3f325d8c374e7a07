"""The service that a command talks to."""

from client.config import find_connection
from client.sdk import Client

SHORT_PATIENCE_S, LONG_PATIENCE_S = 5.0, 60.0


def open_client(
    url: str | None, api_key: str | None, patience_s: float = SHORT_PATIENCE_S
) -> Client:
    """A client of the service that options, environment or a nearby data folder name."""
    connection = find_connection(url, api_key)
    return Client(connection.url, connection.api_key, patience_s=patience_s)
