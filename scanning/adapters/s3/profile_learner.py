"""The profile of an endpoint as one storage goes by it, and what its answers teach."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from scanning.core.endpoint_profile import (
    EndpointProfile,
    Fact,
    KeyOrder,
    StartAfter,
    TotalsSource,
)
from scanning.core.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from scanning.adapters.s3.listing import ListedPage
    from scanning.ports import EndpointProfileStore

    class ListKeys(Protocol):
        """Send one request for keys: at most ``max_keys``, after a key."""

        def __call__(self, max_keys: int, *, after: str = "") -> ListedPage: ...


logger = logging.getLogger(__name__)


class ProfileLearner:
    """Keeps ``profile``, and shares what is learnt with all who use ``profiles``.

    Without ``profiles`` nobody else hears of it, and the endpoint is never asked for facts that are
    due.
    """

    def __init__(self, endpoint: str, profiles: EndpointProfileStore | None) -> None:
        self._endpoint, self._profiles = endpoint, profiles
        self._asking = threading.Lock()
        self.profile = profiles.read(endpoint) if profiles else EndpointProfile()

    @property
    def is_shared(self) -> bool:
        return self._profiles is not None

    def ask(self, list_keys: ListKeys) -> None:
        """Ask the endpoint for all of its facts: two or three listings of at most two keys.

        Raises what the first of them raises.
        """
        self.profile = self.profile.before_asking()
        if self._profiles:  # first: the others that scan here need not ask, too
            self._profiles.learn(self._endpoint, {}, asked=True)
        first = list_keys(2)
        facts: dict[Fact, str] = {Fact.LIST_VERSION: self.profile.list_version}
        if first.last_key:
            facts |= _start_after_of(first, list_keys)
        self.learn(facts)
        self.share(facts)

    def ask_if_due(self, ask: Callable[[], None]) -> None:
        """Have the endpoint asked, unless somebody did lately."""
        if self._profiles is None or not self.profile.is_due(time.time()):
            return
        with self._asking:  # lanes begin at once
            self.profile = self._profiles.read(self._endpoint)
            if self.profile.is_due(time.time()):
                now = time.time()
                ask()
                self.profile = replace(self.profile, asked_at=now)

    def learn(self, facts: Mapping[Fact, str]) -> bool:
        """Take in what an answer showed, and share it; False if it is what the profile says."""
        if not self.take_in(facts):
            return False
        self.share(facts)
        return True

    def learn_totals(self, source: TotalsSource) -> None:
        """Take in what tells totals; that nothing does counts from now on."""
        facts = {Fact.TOTALS: source}
        if not self.learn(facts) and source is TotalsSource.NONE:
            self.profile = self.profile.with_learnt(facts, now=time.time())
            self.share(facts)

    def take_in(self, facts: Mapping[Fact, str]) -> bool:
        """Go by these facts from now on; False if they are what the profile says."""
        if not self.profile.contradicts(facts):
            return False
        self.profile = self.profile.with_learnt(facts, now=time.time())
        learnt = ", ".join(f"{fact} {text}" for fact, text in facts.items())
        is_loud = facts.get(Fact.KEY_ORDER) == KeyOrder.OTHER
        logger.log(
            logging.WARNING if is_loud else logging.INFO, "%s: learnt %s", self._endpoint, learnt
        )
        return True

    def share(self, facts: Mapping[Fact, str]) -> None:
        if self._profiles:
            self._profiles.learn(self._endpoint, facts)


def _start_after_of(first: ListedPage, list_keys: ListKeys) -> dict[Fact, str]:
    """Ask what comes after the second key of a bucket; the first one shows less."""
    try:
        after = list_keys(1, after=first.last_key)
    except PermanentError:
        return {Fact.START_AFTER: StartAfter.IGNORED}
    found = after.first_key
    if found is None or found > first.last_key:
        return {Fact.START_AFTER: StartAfter.EXCLUSIVE}
    if found < first.last_key:
        return {Fact.START_AFTER: StartAfter.IGNORED}
    # Of the only key of a bucket nobody can tell.
    return {Fact.START_AFTER: StartAfter.INCLUSIVE} if first.first_key != found else {}
