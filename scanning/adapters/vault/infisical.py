"""The vault of a site that runs Infisical. Each call is a child process (`infisical_child.py`).

Entries (`core/vault_names.py`) lie in the root folder of one environment. One call lists them all.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scanning.adapters.vault import infisical_errors
from scanning.core.errors import VaultRefused, VaultUnavailable
from scanning.core.vault_names import entries_of, pairs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic import SecretStr

    from scanning.core.types import KeyPair

logger = logging.getLogger(__name__)

# A call takes about 0.15 s; a save in the admin waits for three requests.
TIMEOUT_S = 10.0
# Two requests each, within that time.
_AT_ONCE = 20
_READING = {"read some", "names"}
# Servers lock an identity out after a few bad log-ins, and each further one prolongs that.
AFTER_BAD_LOGIN_S = 900.0
_CHILD = Path(__file__).with_name("infisical_child.py")
# What a child needs to find its packages, a proxy and the site's certificate authority. Nothing
# else: the SDK takes log-ins, and values of secrets it cannot get, from the environment.
_PASSED_ON = (
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "INFISICAL_SSL_CERTIFICATE",
    *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")),
    *(f"{kind}_proxy" for kind in ("http", "https", "all", "no")),
)


@dataclass(frozen=True, slots=True)
class InfisicalSite:
    """Where the secrets are, and who asks: a client id with its secret, else an access token."""

    url: str
    project_id: str
    environment: str
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def login(self) -> str:
        """The settings that log in, for messages."""
        if self.client_id:
            return "INFISICAL_CLIENT_ID and INFISICAL_CLIENT_SECRET"
        return "INFISICAL_TOKEN"


class SiteSettings(Protocol):
    """The settings of the web application that name an Infisical project."""

    @property
    def infisical_client_id(self) -> str: ...
    @property
    def infisical_client_secret(self) -> SecretStr | None: ...
    @property
    def infisical_token(self) -> SecretStr | None: ...
    @property
    def infisical_api_url(self) -> str: ...
    @property
    def infisical_project_id(self) -> str: ...
    @property
    def infisical_env(self) -> str: ...


def open_infisical_vault(settings: SiteSettings) -> InfisicalVault:
    """Build the vault that the settings name; asks nothing yet."""
    secret, token = settings.infisical_client_secret, settings.infisical_token
    # The SDK puts "/api/…" behind the address, and a server answers "//api" with 404.
    url = settings.infisical_api_url.rstrip("/").removesuffix("/api").rstrip("/")
    site = InfisicalSite(
        url=url,
        project_id=settings.infisical_project_id,
        environment=settings.infisical_env,
        client_id=settings.infisical_client_id,
        client_secret=secret.get_secret_value() if secret else "",
        token=token.get_secret_value() if token else "",
    )
    return InfisicalVault(site)


class InfisicalVault:
    """Implements `ports.Vault`; any number of threads may use it.

    Raises VaultUnavailable for what goes away by itself, VaultRefused for what does not.
    """

    def __init__(
        self,
        site: InfisicalSite,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._timeout_s = timeout_s
        self._clock = clock
        self._bad_login = ""
        self._next_login_at = float("-inf")
        self._said_hidden: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"InfisicalVault({self._site.url!r}, {self._site.project_id!r})"

    def read_all(self) -> Mapping[str, KeyPair]:
        """Read every complete key pair, by vault prefix.

        Infisical answers for a missing environment as for an empty one: with nothing.
        """
        answer = self._ask("read")
        entries: dict[str, str] = answer["entries"]
        self._say_hidden(frozenset(answer["hidden"]), nothing_else=not entries)
        return pairs_in(entries)

    def write(self, prefix: str, pair: KeyPair) -> None:
        """Create or replace one key pair, and see that both halves read back.

        Infisical has no transaction: readers may meet half of a rotation. Writing again heals it.
        """
        self._put(entries_of(prefix, pair))

    def delete_many(self, names: Collection[str]) -> None:
        """Forget these entries; those that are not there are as good."""
        waiting = sorted(names)
        for at in range(0, len(waiting), _AT_ONCE):
            self._ask("delete", names=waiting[at : at + _AT_ONCE])

    def names(self) -> frozenset[str]:
        """Name all entries, halves of key pairs and hidden ones included."""
        return frozenset(self._ask("names")["names"])

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        """Read some entries; those that are not there, or hidden, are left out."""
        entries: dict[str, str] = self._ask("read some", names=sorted(names))["entries"]
        return entries

    def write_many(self, entries: Mapping[str, str]) -> None:
        """Create or replace entries by name, some in each child process."""
        waiting = list(entries.items())
        for at in range(0, len(waiting), _AT_ONCE):
            self._put(dict(waiting[at : at + _AT_ONCE]))

    def _put(self, entries: Mapping[str, str]) -> None:
        for name, value in entries.items():
            if not value or value != value.strip():
                raise VaultRefused(
                    f"{name} is empty or has blanks around it, which Infisical would cut off: "
                    "enter it without"
                )
        missing = self._ask("write", entries=entries)["missing"]
        if missing:
            raise VaultUnavailable(
                f"Infisical took {', '.join(missing)} and does not give it back: save again"
            )

    def _ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        if self._clock() < self._next_login_at:
            raise VaultRefused(self._bad_login)
        asked = {
            "site": asdict(self._site),
            "timeout_s": self._timeout_s,
            "question": question,
            **arguments,
        }
        answer = self._child(json.dumps(asked))
        if "problem" in answer:
            raise self._error(str(answer["problem"]), question)
        return answer

    def _child(self, asked: str) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_CHILD)],
                input=asked.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a panic of the SDK may show anything
                timeout=self._timeout_s,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,  # a Ctrl-C in our terminal is not for it
                check=False,
            )
            answer: dict[str, Any] = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise VaultUnavailable(
                f"Infisical at {self._site.url} did not answer in {self._timeout_s:g} s"
            ) from None
        except OSError as exc:
            raise VaultUnavailable(
                f"Cannot start the process that asks Infisical: {exc.strerror}"
            ) from None
        except ValueError:
            raise VaultUnavailable(
                f"The process that asks Infisical broke off (status {done.returncode})"
            ) from None
        return answer

    def _error(self, text: str, question: str) -> VaultRefused | VaultUnavailable:
        site = self._site
        problem = infisical_errors.of(
            text,
            login=site.login,
            url=site.url,
            environment=site.environment,
            project_id=site.project_id,
            do="read" if question in _READING else question,
        )
        if problem.is_bad_login:
            minutes = AFTER_BAD_LOGIN_S / 60
            self._bad_login = f"{problem.error} (tried again {minutes:.0f} minutes later)"
            self._next_login_at = self._clock() + AFTER_BAD_LOGIN_S
        return problem.error

    def _say_hidden(self, hidden: frozenset[str], *, nothing_else: bool) -> None:
        may_not = "Infisical shows us names without values: give the identity the right to read"
        if hidden and nothing_else:
            raise VaultRefused(f"{may_not} secret values")
        if hidden - self._said_hidden:
            logger.error("%s the values of %s", may_not, ", ".join(sorted(hidden)))
        self._said_hidden = hidden
