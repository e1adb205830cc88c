"""What is known of endpoints, shared by all processes (`core/endpoint_profile.py` has the facts).

    endpoint:{endpoint}    hash    settings -> JSON: what an operator set
                                   revision -> the settings' revision
                                   asked_at -> when the endpoint was last asked for its facts
                                   {fact}   -> "value at": what it showed, and when
                                   sent:{kind} -> requests since ever (`lua/share_usage.lua`)

Without Redis a process goes by what it knows itself: facts that are lost are learnt again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.endpoint_profile import (
    EndpointProfile,
    EndpointSettings,
    Fact,
    Learnt,
    is_value,
)
from scanning.core.errors import RedisUnavailable
from scanning.core.request_costs import RequestKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.request_costs import Requests

logger = logging.getLogger(__name__)

# A scan reads the profile as it begins; many scans of one endpoint begin in a second.
_FRESH_S = 2.0


class RedisEndpointProfiles:
    """Implements ``ports.EndpointProfileStore``."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._set = connection.load_script("put_endpoint_settings")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, EndpointProfile]] = {}

    def read(self, endpoint: str) -> EndpointProfile:
        read_at, profile = self._known.get(endpoint, (float("-inf"), EndpointProfile()))
        if time.monotonic() - read_at < _FRESH_S:
            return profile
        name = redis_keys.endpoint_profile(endpoint)
        try:
            profile = _profile(self._connection.run(lambda r: r.hgetall(name)))
        except RedisUnavailable as exc:
            logger.debug("%s: its profile is not to be had: %s", endpoint, exc)
        return self._keep(endpoint, profile)

    def learn(
        self, endpoint: str, facts: Mapping[Fact, str], *, asked: bool = False
    ) -> EndpointProfile:
        now = time.time()
        profile = _with_learnt(self.read(endpoint), facts, now=now, asked=asked)
        fields = {
            str(fact): f"{text} {now:.0f}" for fact, text in facts.items() if is_value(fact, text)
        }
        if asked:
            fields["asked_at"] = f"{now:.0f}"
        # Here first: scans that begin in this moment need not ask the endpoint, too.
        self._keep(endpoint, profile)
        if fields:
            name = redis_keys.endpoint_profile(endpoint)
            try:
                self._connection.run(lambda r: r.hset(name, mapping=fields))
            except RedisUnavailable as exc:
                logger.debug("%s: what it showed is not shared: %s", endpoint, exc)
        return profile

    def forget(self, endpoint: str) -> None:
        """Have an endpoint asked for all of its facts again. Raises RedisUnavailable."""
        name = redis_keys.endpoint_profile(endpoint)
        self._connection.run(lambda r: r.hdel(name, "asked_at", *map(str, Fact)))
        self._known.pop(endpoint, None)

    def set(self, endpoint: str, settings: EndpointSettings, *, revision: int) -> bool:
        """Write what an operator set; False if Redis holds a newer revision."""
        text = json.dumps(settings.as_members())
        keys = [redis_keys.endpoint_profile(endpoint)]
        written = self._set(keys, {"revision": revision, "settings": text})
        self._known.pop(endpoint, None)
        return bool(written)

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint and its settings. Raises RedisUnavailable."""
        self._connection.run(lambda r: r.delete(redis_keys.endpoint_profile(endpoint)))
        self._known.pop(endpoint, None)

    def read_all(self, endpoints: Iterable[str]) -> dict[str, EndpointProfile]:
        """Read several profiles, in one round trip. Raises RedisUnavailable."""
        return {name: _profile(fields) for name, fields in self._hashes(endpoints).items()}

    def revisions(self, endpoints: Iterable[str]) -> dict[str, int]:
        """Read which settings Redis holds, by endpoint; 0 for none. Raises RedisUnavailable."""
        found = self._hashes(endpoints)
        return {name: int(fields.get("revision", 0)) for name, fields in found.items()}

    def sent(self, endpoints: Iterable[str]) -> dict[str, Requests]:
        """Count the requests since ever, by endpoint and kind. Raises RedisUnavailable."""
        return {
            name: {k: int(fields[f"sent:{k}"]) for k in RequestKind if f"sent:{k}" in fields}
            for name, fields in self._hashes(endpoints).items()
        }

    def _hashes(self, endpoints: Iterable[str]) -> dict[str, dict[str, str]]:
        names = list(endpoints)

        def read(r: Any) -> list[dict[str, str]]:
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(redis_keys.endpoint_profile(name))
            found: list[dict[str, str]] = pipe.execute()
            return found

        return dict(zip(names, self._connection.run(read), strict=True)) if names else {}

    def _keep(self, endpoint: str, profile: EndpointProfile) -> EndpointProfile:
        with self._lock:
            self._known[endpoint] = time.monotonic(), profile
        return profile


class ReadOnlyEndpointProfiles:
    """Implements ``ports.EndpointProfileStore`` for who promises to write nothing."""

    def __init__(self, profiles: RedisEndpointProfiles) -> None:
        self._profiles = profiles

    def read(self, endpoint: str) -> EndpointProfile:
        return self._profiles.read(endpoint)

    def learn(
        self, endpoint: str, facts: Mapping[Fact, str], *, asked: bool = False
    ) -> EndpointProfile:
        return _with_learnt(self.read(endpoint), facts, now=time.time(), asked=asked)


def _with_learnt(
    profile: EndpointProfile, facts: Mapping[Fact, str], *, now: float, asked: bool
) -> EndpointProfile:
    learnt = profile.with_learnt(facts, now=now)
    return replace(learnt, asked_at=now) if asked else learnt


def _profile(fields: Mapping[str, str]) -> EndpointProfile:
    learnt = {}
    for fact in Fact:
        value, _, at = fields.get(fact, "").rpartition(" ")
        if is_value(fact, value):
            learnt[fact] = Learnt(value, float(at))
    settings = EndpointSettings.of(json.loads(fields.get("settings", "{}")))
    return EndpointProfile(settings, learnt, float(fields.get("asked_at", 0)))
