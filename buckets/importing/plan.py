"""Buckets from elsewhere, many at a time: `sources.py` reads them, this writes them.

``plan`` says what is to become of each, and writes nothing; ``carry_out`` writes. A bucket that is
here already is left alone, so importing again, after a crash for one, imports what is missing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError

from buckets import audit, selectors
from buckets.models import Bucket, Credential, Outbox
from buckets.services.validation import WatchNames, key_pair, overlap_warning
from buckets.sync import outbox, vault_writes
from buckets.sync.vault_writes import Writing
from scanning import wiring
from scanning.core.vault_names import halves_of, prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from buckets.audit import Actor
    from scanning.core.types import KeyPair

# Rows of one transaction.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Keys:
    """A credential that several buckets may use; without a pair, the vault holds it already."""

    credential: str
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One bucket as its source describes it; ``fields`` are the model's, by name.

    ``keys`` without a pair are in the vault, or another bucket brings them. ``problem`` says why
    the description is of no use.
    """

    name: str
    keys: Keys
    fields: Mapping[str, Any] = field(default_factory=dict)
    client_secret: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to become of a candidate: it has a bucket to import, it exists, or a problem."""

    candidate: Candidate
    bucket: Bucket | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        if self.problem:
            return f"refused: {self.problem}"
        return "import" if self.bucket else "exists"


@dataclass(frozen=True, slots=True)
class Plan:
    """``pairs`` are the keys to store, by credential name; ``shared`` are rows to write first."""

    rows: Sequence[Planned]
    shared: Sequence[Credential]
    pairs: Mapping[str, KeyPair] = field(repr=False)
    problems: Sequence[str] = ()

    def count(self, outcome: str) -> int:
        return sum(row.outcome.startswith(outcome) for row in self.rows)


def plan(candidates: Sequence[Candidate], shared: Sequence[Keys] = ()) -> Plan:
    """Look at everything in its order; writes nothing. Raises the vault's errors."""
    existing = _Existing()
    problems = []
    rows = []
    for keys in shared:
        if keys.credential not in existing.by_name:
            try:
                rows.append(_new_credential(keys, existing))
            except ValidationError as exc:
                problems.append(f"credential {keys.credential}: {_one_line(exc)}")
    planned = [_plan_one(candidate, existing) for candidate in candidates]
    return Plan(planned, rows, existing.pairs, problems)


def carry_out(
    planned: Plan, *, by: Actor = None, progress: Callable[[int], object] | None = None
) -> list[str]:
    """Import what is planned so; returns problems that only writing brought to light.

    ``progress`` is told how many buckets are through, now and then.

    Some buckets at a time, and each time in the order of every other write (`services`): vault,
    rows. In the end Redis learns of them all.
    """
    problems, through = [], 0
    wanted = [row for row in planned.rows if row.bucket]
    parts = [wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)]
    generations = count(time.time_ns() // 1000)
    for shared, part in ((planned.shared, []), *(((), part) for part in parts)):
        try:
            _write(shared, part, planned.pairs, generations, by)
        except IntegrityError:
            names = ", ".join(row.candidate.name for row in part)
            problems.append(f"Somebody else adds some of these just now, import again: {names}")
        through += len(part)
        if progress:
            progress(through)
    outbox.flush()
    return problems


class _Existing:
    """What is here already, read once; grows with what is planned."""

    def __init__(self) -> None:
        watches = Bucket.objects.only("name", "bucket_name", "endpoint", "prefix")
        self.watches: dict[str, list[Bucket]] = {}
        for bucket in watches:
            self.watches.setdefault(bucket.s3_name, []).append(bucket)
        self.buckets = frozenset(bucket.name for bucket in watches)
        self.names = WatchNames(self.buckets)
        self.planned: set[str] = set()
        self.by_prefix = {row.vault_prefix: row for row in Credential.objects.all()}
        self.by_name = {row.name: row for row in self.by_prefix.values()}
        self.vault_names = wiring.vault().names()
        self.pairs: dict[str, KeyPair] = {}


def _plan_one(candidate: Candidate, existing: _Existing) -> Planned:
    if candidate.name in existing.planned:
        return Planned(candidate, problem="It is listed twice: leave one of them out.")
    existing.planned.add(candidate.name)
    if candidate.name in existing.buckets:
        return Planned(candidate)
    if candidate.problem:
        return Planned(candidate, problem=candidate.problem)
    bucket = Bucket(name=candidate.name, **candidate.fields)
    try:
        # The constraints say the same again, at a query each; the database checks them anyway.
        bucket.full_clean(exclude={"credential"}, validate_unique=False, validate_constraints=False)
        existing.names.refuse_alike(bucket.name)
        bucket.credential = _credential(candidate, existing)
        _refuse_blanks(candidate.client_secret)
    except ValidationError as exc:
        return Planned(candidate, problem=_one_line(exc))
    warnings = candidate.warnings
    if bucket.webhook_client_id and not candidate.client_secret:
        name = selectors.webhook_secret_name(bucket)
        if name not in existing.vault_names:
            warnings += (f"the vault lacks {name}: enter its webhook client secret",)
    same = existing.watches.setdefault(bucket.s3_name, [])
    if warning := overlap_warning(bucket, same):
        warnings += (warning,)
    same.append(bucket)
    existing.names.add(bucket.name)
    return Planned(candidate, bucket, warnings=warnings)


def _refuse_blanks(client_secret: str) -> None:
    # Infisical cuts them off, and a write of many entries would fail for this one.
    if client_secret != client_secret.strip():
        problem = "The webhook's client secret has blanks around it: leave them out."
        raise ValidationError({"client_secret": [problem]})


def _credential(candidate: Candidate, existing: _Existing) -> Credential:
    """Find the credential that a bucket is to use: a stored one, or one that is yet to be saved."""
    keys = candidate.keys
    stored = existing.by_name.get(keys.credential)
    if stored is None and keys.credential != candidate.name:
        problem = f"There is no credential {keys.credential}: add it, or list it in the file."
        raise ValidationError({"credential": [problem]})
    if stored is None:
        return _new_credential(keys, existing, came_with_bucket=True)
    if keys.access_key:
        problem = f"Credential {stored.name} has keys already: leave them out here."
        raise ValidationError({"access_key": [problem]})
    return stored


def _new_credential(
    keys: Keys, existing: _Existing, *, came_with_bucket: bool = False
) -> Credential:
    prefix = prefix_of(keys.credential)
    credential = Credential(
        name=keys.credential,
        vault_prefix=prefix,
        endpoint=keys.endpoint,
        came_with_bucket=came_with_bucket,
    )
    credential.full_clean(validate_unique=False, validate_constraints=False)
    if owner := existing.by_prefix.get(prefix):
        problem = f"Its vault entries {prefix}_… belong to credential {owner.name}: use that one."
        raise ValidationError({"credential": [problem]})
    if keys.access_key or keys.secret_key:
        existing.pairs[credential.name] = key_pair(keys.access_key, keys.secret_key)
    elif not existing.vault_names.issuperset(halves_of(prefix)):
        problem = f"The vault does not hold {' and '.join(halves_of(prefix))}."
        raise ValidationError({"credential": [problem]})
    existing.by_prefix[prefix] = existing.by_name[credential.name] = credential
    return credential


def _write(
    shared: Sequence[Credential],
    part: Sequence[Planned],
    pairs: Mapping[str, KeyPair],
    generations: Iterator[int],
    by: Actor,
) -> None:
    buckets = [row.bucket for row in part if row.bucket]
    own = {bucket.credential.name: bucket.credential for bucket in buckets}
    new = [*shared, *(credential for credential in own.values() if credential.pk is None)]
    for bucket in buckets:
        bucket.generation = bucket.generation or next(generations)
    writing = Writing(
        pairs={credential.vault_prefix: pairs.get(credential.name) for credential in new},
        secrets=dict(_secret_entries(part)),
    )
    with vault_writes.stored(writing):
        Credential.objects.bulk_create(new)
        Bucket.objects.bulk_create(buckets)
        Outbox.add(bucket.name for bucket in buckets)
        audit.added(new, by=by)
        audit.added(buckets, by=by)


def _secret_entries(part: Sequence[Planned]) -> Iterator[tuple[str, str]]:
    for row in part:
        if row.bucket and row.candidate.client_secret:
            yield selectors.webhook_secret_name(row.bucket), row.candidate.client_secret


def _one_line(exc: ValidationError) -> str:
    return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in exc.message_dict.items())
