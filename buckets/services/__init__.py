"""Every write of the control plane. Admin, API, commands and the demo change things only here.

``by`` is who asked; what was changed is logged under that name (`buckets/audit.py`), never with a
secret. Bad input raises Django's ``ValidationError`` with a dict of field -> messages, each saying
the fix; a vault that does not answer raises ``VaultUnavailable`` (or ``ConfigurationError``), and
then nothing has changed.

Three stores are written, and no transaction spans them. The order is such that a crash between any
two leaves nothing that scans with wrong keys, and something that the next run repairs:

1.  *Adding or changing:* the vault is written, then the rows in one transaction, then Redis learns
    of it. The vault comes before the commit so that there is never a bucket without keys, and
    outside the transaction so that nobody else waits for a slow vault. Its entries are claimed
    meanwhile, so that two who add the same bucket wait for each other instead of mixing their
    keys; what the database then refuses is put back, and what a crash leaves is removed within a
    minute unless it is used (`buckets/sync/vault_writes.py`).
2.  *Deleting:* the rows go, a ``VaultRemoval`` for each vault entry that nobody needs now is
    written with them, and the transaction commits; then Redis, then the vault. The other way
    round, a crash would leave a bucket without keys. What a crash, or a vault that is away, leaves
    is removed by the monitor within seconds (`buckets/sync/vault_removals.py`), or by `reconcile`.
3.  *Redis* is told after the commit, from the ``Outbox`` rows that the change itself wrote
    (`buckets/sync/outbox.py`); what could not be told stays in it for the monitor and `reconcile`.

`buckets` adds and changes one bucket; `bulk` does what is done to many as well as to one: scan now,
release a hold, start over, switch, delete. The other modules are called after what they change.
"""

from buckets.audit import Actor
from buckets.services.api_clients import (
    create_api_client,
    delete_api_client,
    ensure_bootstrap_client,
    update_api_client,
)
from buckets.services.buckets import (
    CHANGEABLE,
    BucketExists,
    add_bucket,
    note_on_overlaps,
    set_monitoring,
    set_notifications,
    update_bucket,
)
from buckets.services.bulk import (
    delete_bucket,
    delete_buckets,
    rebaseline,
    rebaseline_all,
    release_hold,
    release_holds,
    scan_all_now,
    scan_now,
    switch_buckets,
)
from buckets.services.connection_check import ConnectionCheck, check_connection, check_settings
from buckets.services.credentials import (
    add_credential,
    delete_credential,
    rotate_credential,
    update_credential,
)
from buckets.services.endpoints import learn_again, update_endpoint
from buckets.services.hints import HintsTaken, give_hints
from buckets.services.losses import resume_after_loss
from buckets.services.replay import replay
from buckets.services.second_factors import (
    remove_second_factor,
    set_up_second_factor,
    verify_second_factor,
)

__all__ = [
    "CHANGEABLE",
    "Actor",
    "BucketExists",
    "ConnectionCheck",
    "HintsTaken",
    "add_bucket",
    "add_credential",
    "check_connection",
    "check_settings",
    "create_api_client",
    "delete_api_client",
    "delete_bucket",
    "delete_buckets",
    "delete_credential",
    "ensure_bootstrap_client",
    "give_hints",
    "learn_again",
    "note_on_overlaps",
    "rebaseline",
    "rebaseline_all",
    "release_hold",
    "release_holds",
    "remove_second_factor",
    "replay",
    "resume_after_loss",
    "rotate_credential",
    "scan_all_now",
    "scan_now",
    "set_monitoring",
    "set_notifications",
    "set_up_second_factor",
    "switch_buckets",
    "update_api_client",
    "update_bucket",
    "update_credential",
    "update_endpoint",
    "verify_second_factor",
]
