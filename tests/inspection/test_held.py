"""Which objects are held: read beside scans, and printed by the command."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest

from scanning import engine
from scanning.core import redis_keys
from scanning.core.errors import CommitOutOfStep, StateDamaged
from scanning.core.segments.model import Entry, joined
from scanning.core.texts import spreadsheet_text
from scanning.core.types import ObjectState
from scanning.inspection.held import HeldObject, csv_lines, find_held_objects
from tests.support import engine_buckets
from tests.support.commands import Ran, manage
from tests.support.fakes import FakeStorage, Site
from tests.support.sites import OLD, numbered, scanned, site, without

STATE = ObjectState("e", OLD / 1000, 1)


def held_site(count: int = 1000) -> Site:
    """A bucket of segments of ten objects, all but the first 5 of which are gone, and held."""
    here = site(page_size=10, mass_minimum=10)
    scanned(here, numbered(count))
    end = here.scan_to_the_end(FakeStorage(numbered(5)))
    assert end.held is not None
    return here


def test_held_objects_come_in_key_order_with_what_was_last_known_of_them():
    here = held_site()
    held = find_held_objects(here.states, here.bucket)
    assert (held.missing, held.known, held.missing_since) == (995, 1000, here.now)
    assert (held.count, held.moved, held.moved_since) == (995, 0, None)
    assert list(held.objects) == [HeldObject(f"key-{n:05}", STATE) for n in range(5, 1000)]


def test_only_what_is_missing_is_named():
    here = site(page_size=10, mass_minimum=10, mass_share=0.01)
    scanned(here, numbered(100))
    here.scan_to_the_end(FakeStorage(without(numbered(100), "key-00007", "key-00093")))
    held = find_held_objects(here.states, here.bucket)
    assert [one.key for one in held.objects] == ["key-00007", "key-00093"]


def test_the_rows_are_read_segment_by_segment_as_they_are_taken():
    here = held_site()
    here.states.loads = 0
    held = find_held_objects(here.states, here.bucket)
    assert here.states.loads == 0
    assert len(list(islice(held.objects, 5))) == 5
    assert here.states.loads == 1
    segments = len(here.states.manifest)
    assert segments >= 100
    assert len(list(held.objects)) == 990
    assert here.states.loads <= segments


def test_where_nothing_is_held_nothing_is_named_although_keys_are_missing():
    here = held_site()
    here.states.held_since = None  # as in a pass that is under way
    held = find_held_objects(here.states, here.bucket)
    assert (held.is_any, held.count, list(held.objects)) == (False, 0, [])


def test_what_somebody_confirmed_is_held_no_more():
    here = held_site()
    here.states.released = 995
    assert not find_held_objects(here.states, here.bucket).is_any


def test_a_scan_that_rewrites_segments_meanwhile_makes_no_key_come_twice_or_not_at_all():
    here = held_site()
    held = find_held_objects(here.states, here.bucket)
    first = [one.key for one in islice(held.objects, 300)]
    # One object is back, where the reader was not yet, and new ones are among the missing.
    there = numbered(5) | {"key-00700": ("e", OLD, 1)}
    new = {f"key-{n:05}-new": ("e", OLD, 1) for n in range(250, 900, 3)}
    assert here.scan_to_the_end(FakeStorage(there | new)).held is not None
    keys = first + [one.key for one in held.objects]
    assert keys == [f"key-{n:05}" for n in range(5, 1000) if n != 700]


def test_a_segment_that_was_joined_with_one_that_is_read_already_brings_no_key_twice():
    here = held_site()
    held = find_held_objects(here.states, here.bucket)
    first = [one.key for one in islice(held.objects, 300)]
    entries = here.states.open(here.bucket).entries
    place = next(n for n, entry in enumerate(entries) if entry.last_key >= first[-1])
    early, late = entries[place : place + 2]
    columns = joined(here.states.segments[early.id], here.states.segments[late.id])
    for entry in (early, late):
        del here.states.manifest[entry.id]
    both = Entry("both", late.last_key, len(columns), missing=tuple(range(len(columns))))
    here.states.manifest["both"], here.states.segments["both"] = both, columns
    keys = first + [one.key for one in held.objects]
    assert keys == [f"key-{n:05}" for n in range(5, 1000)]


def test_a_hold_that_ends_meanwhile_is_an_error_and_no_short_list():
    here = held_site()
    held = find_held_objects(here.states, here.bucket)
    list(islice(held.objects, 300))
    here.scan_to_the_end(FakeStorage(numbered(1000)))
    with pytest.raises(CommitOutOfStep, match="the hold ended while its objects were read"):
        list(held.objects)


def test_moved_times_that_are_held_come_with_the_time_that_is_known_and_the_new_one():
    here = site(page_size=10, mass_minimum=10, mass_share=0.3)
    scanned(here, numbered(20))
    stormy = dict.fromkeys(list(numbered(20))[:10], ("e", OLD + 5000, 1))
    here.scan_to_the_end(FakeStorage(stormy | {"key-00019": ("e", OLD, 1)}))
    held = find_held_objects(here.states, here.bucket)
    assert (held.moved, held.missing, held.known, held.count) == (10, 9, 20, 19)
    assert (held.moved_since, held.missing_since) == (here.now, here.now)
    new = OLD / 1000 + 5
    objects = [HeldObject(f"key-{n:05}", STATE, new if n < 10 else None) for n in range(19)]
    assert list(held.objects) == objects
    here.states.released = 9
    left = find_held_objects(here.states, here.bucket)
    assert (left.missing, left.missing_since) == (0, None)
    assert list(left.objects) == objects[:10]
    here.states.takes_times = True
    assert not find_held_objects(here.states, here.bucket).is_any


@pytest.mark.parametrize("which", ["released", "takes_times"])
def test_if_one_of_two_holds_ends_meanwhile_that_is_no_short_list_either(which):
    here = site(page_size=1, mass_minimum=2, mass_share=0.3)
    scanned(here, numbered(4))
    here.scan_to_the_end(FakeStorage(dict.fromkeys(list(numbered(4))[2:], ("e", OLD + 5000, 1))))
    held = find_held_objects(here.states, here.bucket)
    assert (held.missing, held.moved) == (2, 2)
    next(held.objects)
    setattr(here.states, which, 4)
    here.states.manifest |= {id_: replace(e, length=7) for id_, e in here.states.manifest.items()}
    with pytest.raises(CommitOutOfStep, match="the hold ended while its objects were read"):
        list(held.objects)


def test_a_bucket_that_lost_a_segment_is_not_listed_in_part():
    here = held_site()
    here.states.segments.popitem()
    with pytest.raises(StateDamaged):
        list(find_held_objects(here.states, here.bucket).objects)


# --- CSV


@pytest.mark.parametrize(
    ("key", "cell"),
    [
        ("a/b.txt", "a/b.txt"),
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("a=1", "a=1"),
        (" =1", " =1"),
        ('a";=1,"\nb', 'a";=1,"\nb'),
        ("\u202ea\x00é", "\u202ea\x00é"),
    ],
)
def test_a_key_is_exact_in_the_csv_but_for_an_apostrophe_before_what_begins_a_formula(key, cell):
    assert spreadsheet_text(key) == cell
    written = "".join(csv_lines([HeldObject(key, STATE)]))
    header, row = csv.reader(io.StringIO(written, newline=""))
    assert header == ["key", "size", "last_modified", "etag", "new_last_modified"]
    assert row == [cell, "1", "2020-09-13T12:26:40.000Z", "e", ""]
    assert row[0].removeprefix("'") == key or key == cell


def test_no_separator_in_a_key_begins_a_cell():
    assert list(csv_lines([HeldObject("a;=1", STATE)]))[1].startswith('"a;=1",')


# --- against real servers


@pytest.fixture
def command(capsys) -> Callable[..., Ran]:
    return partial(manage, capsys, "held")


@pytest.fixture
def emptied(store, s3_server, settings, capsys) -> Callable[..., str]:
    """A real bucket of which everything was deleted, and its deletion is held."""
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})

    def make(*keys: str) -> str:
        name = s3_server.bucket()
        engine_buckets.put_real(s3_server, name)
        for key in keys:
            s3_server.put(name, key, b"one")
        assert manage(capsys, "runscan", name).status == 0
        for key in keys:
            s3_server.client().delete_object(Bucket=name, Key=key)
        assert "held until somebody" in manage(capsys, "runscan", name).out
        return str(name)

    return make


def test_the_command_prints_how_many_are_held_and_the_first_hundred(command, emptied):
    name = emptied("a\u202eb", *(f"key-{n:03}" for n in range(104)))
    status, out, _ = command(name)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith(f"{name}: 105 of 105 objects missing, held since 20")
    assert lines[1].startswith("  a\\u202eb  3 bytes, 20")
    assert lines[-1] == "… and 5 more: --csv lists all"
    assert len(lines) == 102


def test_moved_times_are_printed_and_written_before_and_since(
    command, store, s3_server, settings, capsys
):
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    name = s3_server.bucket()
    engine_buckets.put_real(s3_server, name)
    for key in ("a\u202eb", "c"):
        s3_server.put(name, key, b"one")
    assert manage(capsys, "runscan", name).status == 0
    s3_server.touch(name, "a\u202eb", "c")
    held = manage(capsys, "runscan", name).out
    assert "0 updated" in held
    assert "of 2 only the time moved, held until somebody chooses" in held
    _, out, _ = command(name)
    first, line, _ = out.splitlines()
    assert first.startswith(f"{name}: 2 of 2 objects with another time only, held since 20")
    assert re.match(r"  a\\u202eb  3 bytes, 20[-0-9: ]+ UTC \(now 20[-0-9: ]+ UTC\), ETag ", line)
    rows = list(csv.DictReader(io.StringIO(command(name, "--csv").out, newline="")))
    assert [row["key"] for row in rows] == ["a\u202eb", "c"]
    assert all(row["last_modified"] < row["new_last_modified"] for row in rows)


def test_the_command_prints_all_as_csv(command, emptied):
    keys = ["=1+1", "a,\u202eb", *(f"key-{n:03}" for n in range(104))]
    status, out, err = command(emptied(*keys), "--csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert (status, err) == (0, "")
    assert [row["key"] for row in rows] == ["'=1+1", *keys[1:]]
    assert {row["size"] for row in rows} == {"3"}


def test_the_command_says_where_nothing_is_held(command, store):
    engine_buckets.put("media-in")
    assert command("media-in") == (0, "media-in: nothing is held\n", "")
    status, out, err = command("media-in", "--csv")
    assert (status, err) == (0, "media-in: nothing is held\n")
    assert out == '"key","size","last_modified","etag","new_last_modified"\r\n'


def test_the_command_knows_no_bucket_of_that_name(command, store):
    status, out, err = command("nobody")
    assert (status, out) == (2, "")
    assert "nobody: Redis holds no configuration" in err


def test_the_command_fails_without_redis(command):
    status, _, err = command("media-in")
    assert status == 1
    assert "Redis does not answer" in err


def test_a_bucket_of_which_redis_lost_a_segment_is_an_error(command, emptied, store):
    name = emptied("a", "b")
    generation = 1
    [segment] = store.hkeys(redis_keys.manifest(name, generation))
    store.delete(redis_keys.segment(name, generation, segment))
    for options in ([], ["--csv"]):
        assert command(name, *options).status == 1


def test_looking_changes_nothing(emptied, store):
    name = emptied("a", "b")
    before = engine_buckets.dump(store)
    held = engine.held_objects(name)
    assert [one.key for one in held.objects] == ["a", "b"]
    assert engine_buckets.dump(store) == before
