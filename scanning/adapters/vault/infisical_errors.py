"""What the texts mean that Infisical's SDK raises: it knows only bare exceptions.

No text of the SDK or of the server gets into a message of ours: it may repeat what was sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from scanning.core.errors import VaultRefused, VaultUnavailable


@dataclass(frozen=True, slots=True)
class Problem:
    """``is_bad_login``: to try it again soon gets the identity locked out."""

    error: VaultRefused | VaultUnavailable
    is_bad_login: bool


def of(text: str, **about: str) -> Problem:
    """Choose the error for a text of the SDK; ``about`` fills the messages' places."""
    rule = next(rule for rule in _RULES if re.search(rule.pattern, text))
    return Problem(rule.error(rule.says.format(**about)), rule.is_bad_login)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a text of the SDK means. ``{login}``, ``{url}`` … in ``says`` stand for settings."""

    pattern: str
    error: type[VaultRefused | VaultUnavailable]
    says: str
    is_bad_login: bool = False


_REFUSED, _AWAY = VaultRefused, VaultUnavailable
# The first that is found in the text counts.
_RULES: Final = (
    _Rule(
        r"^Failed to authenticate: .*locked",
        _REFUSED,
        "Infisical has locked this identity after bad log-ins: wait, correct {login}, restart",
        is_bad_login=True,
    ),
    _Rule(
        r"^Failed to authenticate, did you provide the correct site URL",
        _REFUSED,
        "Infisical does not know this client, or there is no Infisical at {url}: "
        "check INFISICAL_CLIENT_ID and INFISICAL_API_URL",
    ),
    _Rule(
        r"^\[?Failed to authenticate",
        _REFUSED,
        "Infisical does not accept {login}: correct them and restart",
        is_bad_login=True,
    ),
    _Rule(
        r'status 403 .*"TokenError"|token has expired',
        _REFUSED,
        "Infisical says that the access token has expired: "
        "renew INFISICAL_TOKEN, or better use INFISICAL_CLIENT_ID and INFISICAL_CLIENT_SECRET",
    ),
    _Rule(
        r"\(status 403 ",
        _REFUSED,
        "Infisical does not permit this: give the identity of {login} the right to {do} secrets "
        "in environment {environment} of project {project_id}",
    ),
    _Rule(
        r"\(status 422 |decoding response body: invalid type: sequence",
        _REFUSED,
        "Infisical finds the request invalid: check INFISICAL_PROJECT_ID ({project_id}), "
        "INFISICAL_ENV ({environment}) and {login}",
    ),
    _Rule(
        r"missing field `secret`",
        _REFUSED,
        "Infisical asks for approval of changes here, and has filed a request: "
        "have it approved and save again, or exempt the identity from the policy",
    ),
    _Rule(
        r"^Secret with name .* not found\.$",
        _REFUSED,
        "Infisical has no environment {environment} in project {project_id}: "
        "check INFISICAL_ENV and INFISICAL_PROJECT_ID",
    ),
    _Rule(
        r"^\[Bad request\]",
        _REFUSED,
        "Infisical refuses to {do} this entry as a bad request: its own log says why",
    ),
    _Rule(
        r"^builder error|relative URL",
        _REFUSED,
        "INFISICAL_API_URL ({url}) is no address: write it as https://host",
    ),
    _Rule(
        r"[Ee]nd-to-end encryption|[Bb]lind indic",
        _REFUSED,
        "This Infisical project is encrypted end to end, which its SDK cannot read: "
        "switch that off in the project's settings",
    ),
    _Rule(r"No module named", _REFUSED, "The package infisical-python is not installed"),
    _Rule(r"\(status 429 ", _AWAY, "Infisical at {url} limits our requests"),
    _Rule(r"\(status 5\d\d ", _AWAY, "Infisical at {url} has a problem or limits our requests"),
    _Rule(r"^error sending request", _AWAY, "Infisical at {url} cannot be reached"),
    _Rule(r"[Dd]ecod", _AWAY, "What answers at {url} does not answer as Infisical does"),
    _Rule(r"", _AWAY, "Infisical at {url} gave an answer that we do not understand"),
)
