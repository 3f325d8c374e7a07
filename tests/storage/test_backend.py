import pytest
from sqlalchemy.exc import InterfaceError, ProgrammingError

from storage.errors import StoreAway
from storage.sql.backend import reachable


def test_a_database_that_hangs_up_in_the_middle_is_away():
    hung_up = Exception("the connection is closed")
    with pytest.raises(StoreAway), reachable():
        raise InterfaceError("SELECT 1", {}, hung_up, connection_invalidated=True)


def test_a_mistake_is_no_outage():
    with pytest.raises(ProgrammingError), reachable():
        raise ProgrammingError("SELEKT 1", {}, Exception("syntax error"))
