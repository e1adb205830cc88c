"""One question to Infisical, asked in a process of its own; the only importer of its SDK.

The SDK holds the interpreter's lock while it waits for the network, knows no time-out and keeps
signal handlers from running. So the vault's adapter starts this file for each call, and kills it.

    stdin    {"site": {url, project_id, environment, client_id, client_secret, token},
              "timeout_s": 10, "question": "read" | "read some" | "names" | "write" | "delete",
              "entries": {name: value} to write, "names": [name] to read or to delete}
    stdout   {"entries": {name: value}, "hidden": [name]}      read: halves of key pairs only
             {"entries": {name: value}}                         read some
             {"names": [name]}                                  names
             {"missing": [name]}                                write: what does not read back
             {}                                                 delete
             {"problem": "the SDK's text"}

Secrets travel through these two pipes alone. Nothing of bucketwatch is imported: a call has to be
cheap, and what is not loaded cannot leak.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

_PAIR_HALVES = ("_ACCESS_KEY", "_SECRET_KEY")
# What a server gives instead of a value that the identity may not see.
_HIDDEN = "<hidden-by-infisical>"


def main() -> None:
    asked = json.load(sys.stdin)
    # Ends us also when our parent died; its default action runs without the interpreter's lock.
    signal.alarm(int(asked["timeout_s"]) + 2)
    try:
        answer = _answer(asked)
    except Exception as exc:  # noqa: BLE001 - the SDK raises nothing narrower
        answer = {"problem": str(exc) or type(exc).__name__}
    json.dump(answer, sys.stdout)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    place = _Place(asked["site"])
    if asked["question"] == "read":
        return place.key_pairs()
    if asked["question"] == "read some":
        stored, _ = place.everything()
        return {"entries": {n: stored[n] for n in asked["names"] if n in stored}}
    if asked["question"] == "names":
        stored, hidden = place.everything()
        return {"names": [*stored, *hidden]}
    if asked["question"] == "delete":
        for name in asked["names"]:
            place.delete(name)
        return {}
    for name, value in asked["entries"].items():
        place.put(name, value)
    stored, _ = place.everything()
    return {"missing": [n for n, value in asked["entries"].items() if stored.get(n) != value]}


class _Place:
    """The root folder of one project's environment."""

    def __init__(self, site: dict[str, str]) -> None:
        import infisical_client as sdk  # noqa: PLC0415 - after the alarm is set

        if site["client_id"]:
            login = sdk.UniversalAuthMethod(site["client_id"], site["client_secret"])
            auth = sdk.AuthenticationOptions(universal_auth=login)
        else:
            auth = sdk.AuthenticationOptions(access_token=site["token"])
        self._sdk = sdk
        self._client = sdk.InfisicalClient(
            sdk.ClientSettings(auth=auth, site_url=site["url"], cache_ttl=0)
        )
        self._where = {
            "project_id": site["project_id"],
            "environment": site["environment"],
            "path": "/",
        }

    def everything(self) -> tuple[dict[str, str], list[str]]:
        """Read the usable values by name, and the names of those that we may not see."""
        found = self._client.listSecrets(
            self._sdk.ListSecretsOptions(
                **self._where,
                recursive=False,
                include_imports=False,
                expand_secret_references=False,
                attach_to_process_env=False,
            )
        )
        hidden = [one.secret_key for one in found if one.secret_value == _HIDDEN]
        usable = {
            one.secret_key: one.secret_value
            for one in found
            if one.secret_value and one.secret_value != _HIDDEN and not one.is_fallback
        }
        return usable, hidden

    def key_pairs(self) -> dict[str, Any]:
        usable, hidden = self.everything()
        return {
            "entries": {n: value for n, value in usable.items() if n.endswith(_PAIR_HALVES)},
            "hidden": [name for name in hidden if name.endswith(_PAIR_HALVES)],
        }

    def put(self, name: str, value: str) -> None:
        """Update, else create, else update: somebody may create it in between."""
        try:
            return self._update(name, value)
        except Exception as exc:
            if not _is_missing(exc):
                raise
        options = self._sdk.CreateSecretOptions(
            **self._where, secret_name=name, secret_value=value, type="shared"
        )
        try:
            self._client.createSecret(options)
        except Exception as exc:
            if "already exist" not in str(exc):
                raise
            self._update(name, value)

    def _update(self, name: str, value: str) -> None:
        self._client.updateSecret(
            self._sdk.UpdateSecretOptions(
                **self._where, secret_name=name, secret_value=value, type="shared"
            )
        )

    def delete(self, name: str) -> None:
        options = self._sdk.DeleteSecretOptions(**self._where, secret_name=name, type="shared")
        try:
            self._client.deleteSecret(options)
        except Exception as exc:
            if not _is_missing(exc):
                raise


def _is_missing(exc: Exception) -> bool:
    text = str(exc)
    return text.startswith("Secret with name ") and text.endswith(" not found.")


if __name__ == "__main__":
    main()
