"""A real Ceph gateway, where Ceph's programs are installed (`make test-ceph` installs them).

One monitor, one OSD that keeps everything in memory, and radosgw: no manager, no cephx, no systemd.
A cluster serves only who runs on this host; nobody has to be root.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bucketwatch.local.servers import LOOPBACK, ServerProcess, free_port
from tests.support.servers import S3Account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
# A busy machine; the first gateway makes some ten pools, which takes one second each.
UP_WITHIN_S = 180.0

# ``ms_mon_client_mode``: radosgw insists on an encrypted monitor, which does not go without cephx.
# ``tcp_nodelay``: or each small answer takes 40 ms on the loopback interface.
CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:{loopback}:{mon_port}
public_addr = {loopback}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = {home}/keyring
ms_mon_client_mode = crc
admin_socket =
pid_file =
log_file =
log_to_stderr = true
debug_rocksdb = 0
mon_cluster_log_file =
crash_dir = {home}
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
[mon]
mon_data = {home}/mon
[osd]
osd_data = {home}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_max_object_name_len = 2048
osd_class_load_list = *
osd_class_default_list = *
[client]
rgw_data = {home}
rgw_thread_pool_size = 64
rgw_dns_name = localhost
rgw_relaxed_s3_bucket_names = true
"""


def missing() -> str:
    """Say why no gateway can be started here; "" if one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class CephAccount(S3Account):
    """A user of a gateway at ``url``."""

    def __init__(self, url: str, name: str, access_key: str, secret_key: str) -> None:
        self.name, self.access_key, self.secret_key = name, access_key, secret_key
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    def allow(self, other: CephAccount, bucket: str, *actions: str) -> None:
        """Let another user do this with a bucket of the account, and with its objects."""
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam:::user/{other.name}"]},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.client().put_bucket_policy(Bucket=bucket, Policy=policy)


class CephGateway:
    """A cluster of one node with its gateway at ``url``; it ends with the thread that starts it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file = home / "ceph.conf"
        self._mon_port = free_port()
        self._processes: list[ServerProcess] = []
        self.url = ""

    def start(self) -> None:
        # 1. a configuration, and a monitor that knows of itself
        fsid = uuid.uuid4()
        (self.home / "keyring").touch()
        for directory in ("mon", "osd"):
            (self.home / directory).mkdir()
        self._file.write_text(
            CONFIGURATION.format(
                fsid=fsid, home=self.home, loopback=LOOPBACK, mon_port=self._mon_port
            )
        )
        monmap = self.home / "monmap"
        address = f"v2:{LOOPBACK}:{self._mon_port}"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run(
            "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", self.home / "keyring"
        )
        self._start("ceph-mon", "-i", "a")
        # 2. the OSD
        osd = uuid.uuid4()
        self._run("ceph", "--connect-timeout", "60", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start("ceph-osd", "-i", "0")
        # 3. the gateway
        self.url = self._start_gateway("client.rgw.a")

    def stop(self) -> None:
        """Kill what runs: nobody reads its data again."""
        for process in reversed(self._processes):
            process.kill()

    def account(self, name: str, *, tenant: str = "") -> CephAccount:
        """Create a user with a key pair."""
        access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self._run(
            *("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}"),
            *(f"--access-key={access_key}", f"--secret-key={secret_key}", "--max-buckets=0"),
            *([f"--tenant={tenant}"] if tenant else []),
        )
        return CephAccount(self.url, name, access_key, secret_key)

    @contextmanager
    def throttling(self, account: CephAccount, *, most_at_once: int) -> Iterator[CephAccount]:
        """Run a second gateway to the same buckets, which refuses what is more than it takes."""
        url = self._start_gateway("client.rgw.b", f"--rgw_max_concurrent_requests={most_at_once}")
        there = CephAccount(url, account.name, account.access_key, account.secret_key)
        try:
            yield there
        finally:
            there.close()
            self._processes.pop().kill()

    def _start_gateway(self, name: str, *options: str) -> str:
        port = free_port()
        gateway = self._start(
            "radosgw",
            *("-n", name),
            f"--rgw_frontends=beast endpoint={LOOPBACK}:{port} tcp_nodelay=1",
            *options,
        )
        url = f"http://{LOOPBACK}:{port}"
        gateway.wait_until(lambda: _answers(port), what="radosgw", within_s=UP_WITHIN_S)
        return url

    def _start(self, program: str, *arguments: str) -> ServerProcess:
        log = self.home / f"{program}-{len(self._processes)}.log"
        process = ServerProcess([program, "--conf", self._file, *arguments, "-f"], log=log)
        self._processes.append(process)
        return process

    def _run(self, program: str, *arguments: object) -> str:
        configured = [] if program == "monmaptool" else ["--conf", str(self._file)]
        done = subprocess.run(
            [program, *configured, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_WITHIN_S,
        )
        assert done.returncode == 0, f"{program}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        return done.stdout


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1) as probe:
        probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return probe.recv(4) == b"HTTP"
    return False
