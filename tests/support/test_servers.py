"""The servers that the other tests stand on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from django.conf import settings as django_settings
from pydantic import SecretStr

from bucketwatch.local.servers import RedisServer, ServerError
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually


def test_without_redis_a_test_reaches_nobodys_redis():
    assert django_settings.SCANNING.redis.url == SecretStr("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("_again", [1, 2])
def test_each_test_gets_an_empty_redis(redis_server, _again):
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_redis_that_cannot_start_says_why(tmp_path, redis_server):
    with pytest.raises(ServerError, match="in use"):
        RedisServer(tmp_path, port=redis_server.port).start()


def test_an_append_only_redis_remembers_after_a_kill(tmp_path):
    server = RedisServer(tmp_path, appendonly=True)
    server.start()
    with server.client() as client:
        client.rpush("queue", "entry")
    server.kill()
    server.start()
    with server.client() as client:
        assert client.lrange("queue", 0, -1) == ["entry"]
    server.stop()


def test_each_bucket_of_the_s3_server_is_fresh(s3_server):
    bucket = s3_server.bucket("twice")
    s3_server.put(bucket, "a key.txt")
    s3_server.bucket("twice")
    assert s3_server.client().list_objects_v2(Bucket="twice")["KeyCount"] == 0
    assert s3_server.bucket() != s3_server.bucket()


@pytest.mark.parametrize(
    ("access_key", "secret_key", "code"),
    [
        ("right", "wrong", "SignatureDoesNotMatch"),
        ("wrong", "right", "InvalidAccessKeyId"),
    ],
)
def test_the_s3_server_refuses_wrong_keys(s3_server, access_key, secret_key, code):
    stranger = TestS3Server(
        s3_server.directory,
        port=s3_server.port,
        access_key=s3_server.access_key if access_key == "right" else access_key,
        secret_key=s3_server.secret_key if secret_key == "right" else secret_key,
    )
    with pytest.raises(ClientError, match=code):
        stranger.client().list_buckets()
    stranger.client().close()


KEYS = [
    "plain.txt",
    "a/b c+d.mp4",
    "Übersicht/größe 50%.jpg",
    "q?x=1&y=2",
    "~tilde'(1)*!",
    "emoji-😀",
]


@pytest.mark.parametrize("key", KEYS)
def test_signed_requests_with_any_key_are_let_through(s3_server, key):
    bucket = s3_server.bucket()
    s3_server.client().put_object(
        Bucket=bucket, Key=key, Body=b"body", ContentType="text/plain", Metadata={"by": "me  too"}
    )
    listed = s3_server.client().list_objects_v2(Bucket=bucket, StartAfter=key[0], Prefix=key[0])
    assert [row["Key"] for row in listed.get("Contents", [])] in ([key], [])
    assert s3_server.client().head_object(Bucket=bucket, Key=key)["ContentType"] == "text/plain"


def content(server: TestS3Server, bucket: str) -> list[tuple[object, ...]]:
    listed = server.client().list_objects_v2(Bucket=bucket)
    return [(o["Key"], o["ETag"], o["LastModified"], o["Size"]) for o in listed.get("Contents", [])]


def test_a_keeping_s3_server_remembers_after_a_kill(tmp_path):
    server = TestS3Server(tmp_path, access_key="key", secret_key="secret", keep=True)
    server.start()
    client = server.client()
    client.create_bucket(Bucket="kept")
    client.create_bucket(Bucket="emptied")
    for key in KEYS:
        client.put_object(Bucket="kept", Key=key, Body=key.encode(), Metadata={"by": "me"})
    client.delete_object(Bucket="kept", Key=KEYS[0])
    upload = client.create_multipart_upload(Bucket="kept", Key="parts")["UploadId"]
    part = client.upload_part(
        Bucket="kept", Key="parts", UploadId=upload, PartNumber=1, Body=b"part"
    )
    client.complete_multipart_upload(
        Bucket="kept",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    before = content(server, "kept")
    assert len(before) == len(KEYS)
    server.kill()
    server.start()
    assert content(server, "kept") == before
    assert content(server, "emptied") == []
    assert client.head_object(Bucket="kept", Key=KEYS[1])["Metadata"] == {"by": "me"}
    client.delete_objects(Bucket="kept", Delete={"Objects": [{"Key": key} for key in KEYS]})
    server.kill()
    server.start()
    assert [row[0] for row in content(server, "kept")] == ["parts"]
    server.close()


def test_servers_end_with_the_program_that_started_them(tmp_path):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from bucketwatch.local.servers import RedisServer, S3Server\n"
        "redis = RedisServer(Path(sys.argv[1])); redis.start()\n"
        "s3 = S3Server(Path(sys.argv[1]), access_key='a', secret_key='b'); s3.start()\n"
        "print(redis.pid, s3.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in children))


def alive(pid: int) -> bool:
    """Look for a running process; a zombie is none."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
