"""Which keys a hint names: as a program says it, or in what S3 servers and event buses send.

A hint is only a place to look, so whatever names a bucket and a key will do, and a key that may
have been meant in two ways is looked at in both.

==========================  ======================================================================
what                        where bucket and key are
==========================  ======================================================================
a program's own             ``{"bucket": …, "keys": […]}``, or a list of those
notifications of S3, Ceph   ``Records[].s3.bucket.name`` and ``….s3.object.key``, which S3 and MinIO
and MinIO                   encode as in a form, and Ceph does not
an older MinIO's envelope   ``Key``: bucket, slash, key
Amazon EventBridge          ``detail.bucket.name`` and ``detail.object.key``
CloudEvents                 one of these in ``data``; else ``source`` and ``subject``, as in
                            https://github.com/cloudevents/spec (``cloudevents/adapters/aws-s3.md``)
==========================  ======================================================================
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_plus

from scanning.core.explain import why_impossible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WHOLE: Final = "__all__"
LONGEST_BUCKET_NAME: Final = 255
_TEST_EVENT: Final = "s3:TestEvent"
# `source` as the adapters of the specification and Ceph write it: aws:s3.us-east-1.the-bucket
_SOURCE_OF_S3: Final = re.compile(r"[\w-]+:s3\.[^.]*\.(?P<bucket>.+)", re.DOTALL)
# //storage.googleapis.com/projects/_/buckets/the-bucket, with a `subject` of objects/the-key
_SOURCE_OF_GOOGLE: Final = re.compile(r".*/buckets/(?P<bucket>[^/]+)", re.DOTALL)


class UnreadableHint(ValueError):
    """``member`` of the request is wrong, or all of it; ``problem`` is for people."""

    def __init__(self, member: str, problem: str) -> None:
        super().__init__(problem)
        self.member, self.problem = member, problem


@dataclass(frozen=True, slots=True)
class Hint:
    """One key of a bucket, as S3 names both; ``keys`` are the ways in which it may be meant."""

    bucket: str
    keys: tuple[str, ...]


def read_hints(body: bytes, headers: Mapping[str, str]) -> list[Hint]:
    """Read a request; none of one that only tests the connection. Raises UnreadableHint.

    ``headers`` are those of CloudEvents (their names in lower case) and ``content-type``.
    """
    if "ce-specversion" not in headers:
        return list(_of_document(_parsed(body)))
    attributes = {name: _header(headers.get(f"ce-{name}", "")) for name in ("source", "subject")}
    is_json = "json" in headers.get("content-type", "json")  # else it may be the object itself
    data = _parsed(body) if is_json and body.strip() else None
    return list(_of_cloud_event(attributes | {"data": data}))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as exc:
        problem = f"The body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}."
        raise UnreadableHint(WHOLE, problem) from None
    except (ValueError, RecursionError):
        raise UnreadableHint(WHOLE, "The body is not JSON in UTF-8.") from None


def _header(text: str) -> str:
    """Read UTF-8 as Ceph sends it; by the specification it is percent-encoded, as keys may be."""
    with suppress(UnicodeError):
        return text.encode("latin-1").decode()
    return text


def _of_document(document: Any) -> Iterator[Hint]:
    if isinstance(document, list):
        for number, element in enumerate(document):
            try:
                yield from _of_object(element)
            except UnreadableHint as exc:
                raise UnreadableHint(exc.member, f"In element {number}: {exc.problem}") from None
    else:
        yield from _of_object(document)


def _of_object(given: Any) -> Iterator[Hint]:
    if not isinstance(given, dict):
        problem = 'The body must be a JSON object, or a list of some: {"bucket": …, "keys": […]}.'
        raise UnreadableHint(WHOLE, problem)
    if "specversion" in given:
        yield from _of_cloud_event(given)
    elif given.get("Event") != _TEST_EVENT:
        found = _of_notification(given)
        yield from _of_program(given) if found is None else found


def _of_program(given: dict[str, Any]) -> Iterator[Hint]:
    if unknown := given.keys() - {"bucket", "keys"}:
        member = min(map(str, unknown))
        shown = member if re.fullmatch(r"[A-Za-z_]{1,30}", member) else WHOLE
        raise UnreadableHint(shown, "This is not known here; known are: bucket, keys.")
    bucket = _bucket(given.get("bucket"), "bucket")
    keys = given.get("keys")
    if not isinstance(keys, list) or not keys:
        raise UnreadableHint("keys", "This must be a list of at least one key.")
    for number, key in enumerate(keys):
        yield Hint(bucket, (_key(key, "keys", f"keys[{number}]"),))


def _of_notification(given: dict[str, Any]) -> list[Hint] | None:
    """Read what S3 servers send; None if it is something else."""
    match given:
        case {"Records": list(records)}:
            places = (f"Records[{number}]" for number in range(len(records)))
            return [_of_record(r, "Records", p) for r, p in zip(records, places, strict=True)]
        case {"s3": dict()}:
            return [_of_record(given, "s3", "")]
        case {"detail": {"bucket": dict(bucket), "object": dict(object_)}}:
            return [_of_parts(bucket, object_, "detail", "detail")]
        case {"bucket": dict(bucket), "object": dict(object_)}:
            return [_of_parts(bucket, object_, "bucket", "")]
        case {"EventName": _, "Key": str(path)}:
            bucket_name, _, key = path.partition("/")
            return [_hint(bucket_name, key, "Key", "Key")]
    return None


def _of_record(record: Any, member: str, place: str) -> Hint:
    match record:
        case {"s3": {"bucket": dict(bucket), "object": dict(object_)}}:
            return _of_parts(bucket, object_, member, f"{place}.s3".lstrip("."))
    raise UnreadableHint(member, f"{place}.s3 must have bucket and object.".lstrip("."))


def _of_parts(bucket: Mapping[str, Any], object_: Mapping[str, Any], member: str, at: str) -> Hint:
    place = f"{at}.object.key".lstrip(".")
    return _hint(bucket.get("name"), object_.get("key"), member, place)


def _of_cloud_event(event: Mapping[str, Any]) -> Iterator[Hint]:
    data = event.get("data")
    if isinstance(data, dict):
        if data.get("Event") == _TEST_EVENT:
            return
        if (found := _of_notification(data)) is not None:
            yield from found
            return
        match data:
            case {"bucket": str(), "keys": list()}:
                yield from _of_program({"bucket": data["bucket"], "keys": data["keys"]})
                return
            case {"bucket": str(bucket), "key": str(key)}:
                yield _hint(bucket, key, "data", "data.key")
                return
    yield _of_attributes(event.get("source"), event.get("subject"))


def _of_attributes(source: Any, subject: Any) -> Hint:
    if not isinstance(source, str) or not source:
        raise UnreadableHint(
            "source", "This must name the bucket, as in aws:s3.us-east-1.media-in."
        )
    if not isinstance(subject, str) or not subject:
        raise UnreadableHint("subject", "This must be the object's key.")
    if found := _SOURCE_OF_GOOGLE.fullmatch(source):
        return _hint(found["bucket"], subject.removeprefix("objects/"), "subject", "subject")
    if found := _SOURCE_OF_S3.fullmatch(source):
        return _hint(found["bucket"], subject, "subject", "subject")
    # An ARN, s3://the-bucket, or its name alone
    return _hint(re.split(r"[:/]+", source.rstrip("/"))[-1], subject, "subject", "subject")


def _hint(bucket: Any, key: Any, member: str, place: str) -> Hint:
    """Make a hint of a key that may be URL-encoded, as in a form or as in a path, or may not be."""
    name = _bucket(bucket, member)
    if not isinstance(key, str):
        raise UnreadableHint(member, f"{place} must be text.")
    meant = dict.fromkeys((unquote_plus(key), unquote(key), key))
    keys = tuple(spelt for spelt in meant if not why_impossible(spelt))
    if not keys:
        raise UnreadableHint(member, f"{place}: {why_impossible(key)}")
    return Hint(name, keys)


def _bucket(name: Any, member: str) -> str:
    if not isinstance(name, str) or not name:
        raise UnreadableHint(member, "The bucket's name, as S3 knows it, must be text.")
    if len(name) > LONGEST_BUCKET_NAME or not name.isprintable():
        raise UnreadableHint(member, "No bucket can have this name.")
    return name


def _key(key: Any, member: str, place: str) -> str:
    if not isinstance(key, str):
        raise UnreadableHint(member, f"{place} must be text.")
    if problem := why_impossible(key):
        raise UnreadableHint(member, f"{place}: {problem}")
    return key
