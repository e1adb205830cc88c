"""Reads that have to go on however many buckets there are."""

import sqlite3

import pytest
from django.db import connection

from buckets import selectors
from buckets.models import Bucket
from buckets.selectors import State
from tests.support import api_client

pytestmark = pytest.mark.django_db

STOCK_SQLITE_TAKES = 32_766


@pytest.fixture
def stock_sqlite() -> None:
    """Some builds take more parameters than SQLite does by itself."""
    connection.ensure_connection()
    connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, STOCK_SQLITE_TAKES)


def test_any_number_of_late_buckets_can_be_counted_and_listed(stock_sqlite):
    api_client.add_bucket("due")
    api_client.add_bucket("in-time")
    late = ["due", *(f"bucket-{number}" for number in range(STOCK_SQLITE_TAKES))]

    counts = selectors.state_counts(late=late)

    assert (counts[State.LATE], counts[State.WAITING]) == (1, 1)
    [listed] = selectors.in_state(Bucket.objects.all(), State.LATE, late=late)
    assert listed.name == "due"
