"""What an S3 endpoint does and does not do: learnt by asking, or set by an operator, who is right.

    fact             learnt from                                          without either
    start_after      a page after the second key of a bucket              exclusive
    list_version     an answer, or a refusal, of ListObjectsV2            2
    url_encoding     keys that look the same encoded and not              honoured
    signing_region   AuthorizationHeaderMalformed                         what the host's name says
    addressing       a refusal of path style                              path
    key_order        keys that are listed out of the order of bytes       bytes
    totals           headers of HEAD of a bucket, asked for by probes     none

All of it is learnt by requests that a key may make that can do no more than list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from scanning.core.pacing import EndpointLimits

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fact(StrEnum):
    START_AFTER = "start_after"
    LIST_VERSION = "list_version"
    URL_ENCODING = "url_encoding"
    SIGNING_REGION = "signing_region"
    ADDRESSING = "addressing"
    KEY_ORDER = "key_order"
    TOTALS = "totals"


class StartAfter(StrEnum):
    """Whether a listing begins behind the key that was asked for, with it, or anywhere."""

    EXCLUSIVE = "exclusive"
    INCLUSIVE = "inclusive"
    IGNORED = "ignored"


class ListVersion(StrEnum):
    V2 = "2"
    V1 = "1"


class UrlEncoding(StrEnum):
    """Whether keys are encoded as was asked for; ``CLAIMED`` is said, and not done."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    CLAIMED = "claimed"


class Addressing(StrEnum):
    """Where the bucket's name stands: in the path, or in front of the host."""

    PATH = "path"
    VIRTUAL = "virtual"


class KeyOrder(StrEnum):
    BYTES = "bytes"
    OTHER = "other"


class TotalsSource(StrEnum):
    """What tells the totals of a bucket: headers of HEAD of the bucket, as Ceph's gateway sends."""

    RGW = "rgw"
    NONE = "none"


CHOICES: Final[Mapping[Fact, tuple[str, ...]]] = {
    Fact.START_AFTER: tuple(StartAfter),
    Fact.LIST_VERSION: tuple(ListVersion),
    Fact.URL_ENCODING: tuple(UrlEncoding),
    Fact.ADDRESSING: tuple(Addressing),
    Fact.KEY_ORDER: tuple(KeyOrder),
    Fact.TOTALS: tuple(TotalsSource),
}
DEFAULTS: Final[Mapping[Fact, str]] = {
    Fact.START_AFTER: StartAfter.EXCLUSIVE,
    Fact.LIST_VERSION: ListVersion.V2,
    Fact.URL_ENCODING: UrlEncoding.HONOURED,
    Fact.ADDRESSING: Addressing.PATH,
    Fact.KEY_ORDER: KeyOrder.BYTES,
    Fact.TOTALS: TotalsSource.NONE,
}
# A fact that has no choices may be any name that signatures hold.
REGION: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"

# Certificate authorities: these two, a file's path, or "" for both of these together.
BUNDLED, SYSTEM = "bundled", "system"

# What was learnt so long ago is asked again; an endpoint that could not show it, because all its
# buckets are nearly empty, is asked not more often than this.
STALE_S: Final = 86_400.0
ASK_AGAIN_S: Final = 600.0


def is_value(fact: Fact, value: str) -> bool:
    """Tell whether a fact can have this value, whoever says so."""
    if fact in CHOICES:
        return value in CHOICES[fact]
    return re.fullmatch(REGION, value) is not None


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What an operator set of an endpoint; "" and None leave it to what is learnt.

    Facts by their names. ``authorities``: ``bundled``, ``system``, or the path of a file.
    ``list_per_s`` and ``connections`` are limits, 0 for none; without them ``limits.endpoints``
    counts. ``requests_per_day`` is a budget that its buckets share, 0 for none; ``request_price``
    what `core/request_costs.py` reads.
    """

    start_after: str = ""
    list_version: str = ""
    url_encoding: str = ""
    signing_region: str = ""
    addressing: str = ""
    key_order: str = ""
    totals: str = ""
    authorities: str = ""
    list_per_s: float | None = None
    connections: int | None = None
    requests_per_day: int | None = None
    request_price: str = ""

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> EndpointSettings:
        """Read what `as_members` made; members that a later version wrote are left out."""
        return cls(**{name: members[name] for name in cls.__slots__ if name in members})

    def as_members(self) -> dict[str, Any]:
        """Write what is set, for JSON."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in members.items() if value not in {"", None}}


@dataclass(frozen=True, slots=True)
class Learnt:
    """One fact as an endpoint showed it, and when."""

    value: str
    at: float


@dataclass(frozen=True, slots=True)
class EndpointProfile:
    """What is known of an endpoint; adapters ask this and nothing else.

    ``asked_at`` is when its facts were last asked for, 0 for never.
    """

    settings: EndpointSettings = EndpointSettings()
    learnt: Mapping[Fact, Learnt] = field(default_factory=dict)
    asked_at: float = 0.0

    @property
    def start_after(self) -> StartAfter:
        return StartAfter(self.effective(Fact.START_AFTER))

    @property
    def list_version(self) -> ListVersion:
        return ListVersion(self.effective(Fact.LIST_VERSION))

    @property
    def url_encoding(self) -> UrlEncoding:
        return UrlEncoding(self.effective(Fact.URL_ENCODING))

    @property
    def addressing(self) -> Addressing:
        return Addressing(self.effective(Fact.ADDRESSING))

    @property
    def key_order(self) -> KeyOrder:
        return KeyOrder(self.effective(Fact.KEY_ORDER))

    @property
    def signing_region(self) -> str:
        """The region to sign for; "" for the one that the host's name says."""
        return self.value(Fact.SIGNING_REGION)

    @property
    def begins_anywhere(self) -> bool:
        """Whether a listing can begin after any key: else it is one lane, from the start."""
        return self.start_after is not StartAfter.IGNORED and self.key_order is KeyOrder.BYTES

    def may_tell_totals(self, now: float) -> bool:
        """Tell whether to ask for a bucket's totals: where there were none, once a day."""
        if self.value(Fact.TOTALS) != TotalsSource.NONE:
            return True
        learnt = self.learnt.get(Fact.TOTALS)
        is_set = bool(self.set_value(Fact.TOTALS))
        return not is_set and learnt is not None and now - learnt.at > STALE_S

    def value(self, fact: Fact) -> str:
        """Say what is set of a fact, else what was learnt; "" where nobody knows."""
        return self.set_value(fact) or (self.learnt[fact].value if fact in self.learnt else "")

    def effective(self, fact: Fact) -> str:
        """Say what adapters go by; of a signing region "" is what the host's name says."""
        return self.value(fact) or DEFAULTS.get(fact, "")

    def set_value(self, fact: Fact) -> str:
        text: str = getattr(self.settings, fact)
        return text

    def limits(self, default: EndpointLimits) -> EndpointLimits:
        """Lay the limits that are set over those of the configuration."""
        per_s, connections = self.settings.list_per_s, self.settings.connections
        return EndpointLimits(
            default.list_per_s if per_s is None else per_s,
            default.connections if connections is None else connections,
        )

    def is_due(self, now: float) -> bool:
        """Tell whether to ask the endpoint for its facts (again)."""
        if self.value(Fact.START_AFTER) or self.value(Fact.LIST_VERSION) == ListVersion.V1:
            return now - self.asked_at > STALE_S
        return now - self.asked_at > ASK_AGAIN_S

    def before_asking(self) -> EndpointProfile:
        """Forget what asking shows anew; the rest shows by other requests, and otherwise."""
        lasting = (Fact.SIGNING_REGION, Fact.ADDRESSING, Fact.KEY_ORDER, Fact.TOTALS)
        return replace(self, learnt={f: self.learnt[f] for f in lasting if f in self.learnt})

    def with_learnt(self, facts: Mapping[Fact, str], *, now: float) -> EndpointProfile:
        """Take in what an endpoint showed; what it cannot have shown is left out."""
        new = {fact: Learnt(text, now) for fact, text in facts.items() if is_value(fact, text)}
        return replace(self, learnt={**self.learnt, **new})

    def contradicts(self, facts: Mapping[Fact, str]) -> bool:
        """Tell whether these facts change what adapters go by: settings never do."""
        return any(
            is_value(fact, text) and not self.set_value(fact) and self.value(fact) != text
            for fact, text in facts.items()
        )
