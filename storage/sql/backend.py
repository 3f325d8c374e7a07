"""What every part of the SQL job store stands on: an engine and two kinds of transaction."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, Select
from sqlalchemy.exc import DBAPIError, OperationalError
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
    """Raise `StoreAway` when the database does not answer, hangs up or others hold its locks."""
    try:
        yield
    except (OperationalError, PoolExhausted) as error:
        raise StoreAway() from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreAway() from error
        raise


def one_page(
    session: Session,
    query: Select[Row],
    key: Any,
    *,
    after: Any | None,
    limit: int,
    order: Order,
    before: Any | None = None,
) -> tuple[Sequence[Row], bool]:
    """Return up to `limit` rows and whether there are more of them (keyset, no OFFSET).

    They are the first beyond `after`, or the last short of `before` if only that is given.
    """
    ascending = order == "asc"
    if after is not None:
        query = query.where(key > after if ascending else key < after)
    if before is not None:
        query = query.where(key < before if ascending else key > before)
    backwards = before is not None and after is None
    query = query.order_by(key.asc() if ascending is not backwards else key.desc())
    rows = session.scalars(query.limit(limit + 1)).all()
    page = rows[:limit]
    return page[::-1] if backwards else page, len(rows) > limit


def page_of(items: Sequence[Any], has_more: bool) -> Page[Any]:
    """Wrap resources that have ids."""
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return Page(data=items, has_more=has_more, first_id=first, last_id=last)
