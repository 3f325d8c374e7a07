import time
from uuid import UUID

from storage.ids import new_id


def test_ids_sort_in_order_of_creation():
    ids = [new_id("job") for _ in range(2000)]
    assert ids == sorted(ids) and len(set(ids)) == 2000


def test_an_id_is_a_version_7_uuid_of_this_moment():
    number = UUID(new_id("evt").removeprefix("evt_"))
    assert number.version == 7
    assert abs((number.int >> 80) / 1000 - time.time()) < 5
