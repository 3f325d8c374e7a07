"""What every part of the SQL job store stands on: an engine and two kinds of transaction."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, Select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm import Session

from schemas.wire import Page
from storage.errors import StoreAway
from storage.interfaces import Order

Row = TypeVar("Row")
AFTER_COMMIT = "after_commit"


class SqlBackend:
    """An engine and its transactions."""

    def __init__(self, engine: Engine) -> None:
        """Share `engine` among all parts of a store."""
        self._engine = engine

    @contextmanager
    def _write(self) -> Iterator[Session]:
        engine = self._engine
        with reachable(), Session(engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            for told in session.info.pop(AFTER_COMMIT, ()):
                told()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        engine = self._engine.execution_options(reads_only=True)
        with reachable(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session


def after_commit(session: Session, tell: Callable[[], None]) -> None:
    """Call `tell` once the transaction at hand has been committed: what rolls back never was."""
    session.info.setdefault(AFTER_COMMIT, []).append(tell)


@contextmanager
def reachable() -> Iterator[None]:
    """Raise `StoreAway` when the database does not answer or others hold its locks."""
    try:
        yield
    except (OperationalError, PoolExhausted) as error:
        raise StoreAway() from error


def one_page(
    session: Session,
    query: Select[Row],
    key: Any,
    *,
    after: Any | None,
    limit: int,
    order: Order,
) -> tuple[Sequence[Row], bool]:
    """Return up to `limit` rows beyond `after` and whether there are more (keyset, no OFFSET)."""
    if after is not None:
        query = query.where(key > after if order == "asc" else key < after)
    query = query.order_by(key.asc() if order == "asc" else key.desc()).limit(limit + 1)
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def page_of(items: Sequence[Any], has_more: bool) -> Page[Any]:
    """Wrap resources that have ids."""
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return Page(data=items, has_more=has_more, first_id=first, last_id=last)
