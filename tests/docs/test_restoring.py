"""`docs/how-to/backup.md`: how Redis and PostgreSQL come back from their backups.

Its other commands are run with those of all pages (`tests/docs/test_doc_commands.py`).
"""

import os
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from bucketwatch.local.servers import RedisServer
from tests.support import postgres
from tests.support.doc_blocks import ALL, Block

PAGE = "docs/how-to/backup.md"


def block_with(command: str) -> Block:
    [block] = [block for block in ALL if block.page == PAGE and command in block.text]
    return block


def run(block: Block, directory: Path, **environ: str) -> None:
    commands = ["bash", "-eu", "-c", block.text]
    subprocess.run(commands, cwd=directory, env=os.environ | environ, check=True)


def test_a_redis_that_is_restored_as_the_page_says_has_its_data(tmp_path):
    """A dump.rdb alone is ignored: it would start empty, and nothing would say so."""
    lost, new, backup = tmp_path / "lost", tmp_path / "new", tmp_path / "backup"
    backup.mkdir()
    before = RedisServer(lost, appendonly=True)
    before.start()
    with before.client() as client:
        client.set("linode:objstore:last_scan:media-in", "1740830982.5")
        client.save()  # what `redis-cli --rdb` is given is the same
    before.stop()
    shutil.move(lost / "dump.rdb", backup / "redis.rdb")
    new.mkdir()
    (new / "appendonlydir").mkdir()  # of a Redis that has started empty since
    run(block_with("appendonly.aof.manifest"), new, BACKUP=str(backup))
    for _ in range(2):  # what it goes on to write has to fit
        after = RedisServer(new, appendonly=True)
        after.start()
        with after.client() as client:
            assert client.get("linode:objstore:last_scan:media-in") == "1740830982.5"
            client.incr("written since")
        after.stop()
    assert (new / "appendonlydir.lost").exists()


@pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing())
@pytest.mark.skipif(not shutil.which("pg_restore"), reason="pg_restore is not installed")
def test_a_database_that_is_restored_as_the_page_says_is_what_it_was(tmp_path):
    (tmp_path / "backup").mkdir()
    server = postgres.PostgresServer()
    server.start()
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE bucket AS SELECT 'media-in' AS name")
            run(block_with("pg_dump"), tmp_path, DATABASE_URL=server.url)
            connection.execute("UPDATE bucket SET name = 'another'")
            run(block_with("pg_restore"), tmp_path, DATABASE_URL=server.url)
            assert connection.execute("SELECT name FROM bucket").fetchall() == [("media-in",)]
    finally:
        server.remove()
