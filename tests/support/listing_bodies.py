"""Listing answers as different servers write them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True)
class Row:
    key: str
    etag: str = "d41d8cd98f00b204e9800998ecf8427e"
    last_modified: str = "2024-05-01T12:34:56.789Z"
    size: int = 3


def rgw(
    rows: Iterable[Row], *, is_truncated: bool = False, echo: str = "", token: str = ""
) -> bytes:
    """Write as Ceph RGW: IsTruncated before the entries, ``&quot;``, echoes and tokens raw."""
    rows = list(rows)
    entries = "".join(
        f"<Contents><Key>{rgw_key(row.key)}</Key><LastModified>{row.last_modified}</LastModified>"
        f"<ETag>&quot;{row.etag}&quot;</ETag><Size>{row.size}</Size>"
        "<StorageClass>STANDARD</StorageClass><Owner><ID>u</ID><DisplayName>U &amp; V</DisplayName>"
        "</Owner><Type>Normal</Type></Contents>"
        for row in rows
    )
    next_token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{XMLNS}"><Name>b</Name>'
        f"<Prefix></Prefix><MaxKeys>1000</MaxKeys><IsTruncated>{_bool(is_truncated)}</IsTruncated>"
        f"<EncodingType>url</EncodingType><KeyCount>{len(rows)}</KeyCount>"
        f"<StartAfter>{echo}</StartAfter>{next_token}{entries}</ListBucketResult>"
    ).encode()


def rgw_key(key: str) -> str:
    return quote(key, safe="'~").replace("'", "&apos;")


def aws(rows: Iterable[Row], *, is_truncated: bool = False) -> bytes:
    """Write as AWS: a line break after the declaration, checksums and restore status in entries."""
    rows = list(rows)
    entries = "".join(
        f"<Contents><Key>{escape(quote_plus(row.key, safe='/*'))}</Key>"
        f"<LastModified>{row.last_modified}</LastModified><ETag>&quot;{row.etag}&quot;</ETag>"
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        f"<Size>{row.size}</Size><StorageClass>GLACIER</StorageClass><RestoreStatus>"
        "<IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents>"
        for row in rows
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{XMLNS}"><Name>b</Name>'
        f"<Prefix></Prefix><KeyCount>{len(rows)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<EncodingType>url</EncodingType><IsTruncated>{_bool(is_truncated)}</IsTruncated>"
        f"{entries}</ListBucketResult>"
    ).encode()


def minio(rows: Iterable[Row], *, is_truncated: bool = False) -> bytes:
    """Write as MinIO: ``&#34;``, IsTruncated after the entries, metadata elements."""
    rows = list(rows)
    entries = "".join(
        f"<Contents><Key>{escape(quote_plus(row.key, safe='/'))}</Key>"
        f"<LastModified>{row.last_modified}</LastModified><ETag>&#34;{row.etag}&#34;</ETag>"
        f"<Size>{row.size}</Size><Owner><ID>1</ID><DisplayName></DisplayName></Owner>"
        "<StorageClass>STANDARD</StorageClass><UserMetadata></UserMetadata></Contents>"
        for row in rows
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{XMLNS}"><Name>b</Name>'
        f"<Prefix></Prefix><KeyCount>{len(rows)}</KeyCount><MaxKeys>1000</MaxKeys>{entries}"
        f"<IsTruncated>{_bool(is_truncated)}</IsTruncated><EncodingType>url</EncodingType>"
        "</ListBucketResult>"
    ).encode()


def plain(rows: Iterable[Row], *, is_truncated: bool = False) -> bytes:
    """Write without regard to encoding-type, and without namespace, KeyCount or ETag quotes."""
    entries = "".join(
        f"<Contents><Key>{escape(row.key)}</Key><LastModified>{row.last_modified}</LastModified>"
        f"<ETag>{row.etag}</ETag><Size>{row.size}</Size></Contents>"
        for row in rows
    )
    return (
        f"<ListBucketResult><IsTruncated>{_bool(is_truncated)}</IsTruncated>"
        f"{entries}</ListBucketResult>"
    ).encode()


def pretty(rows: Iterable[Row], *, is_truncated: bool = False) -> bytes:
    """Write one element a line, indented, with a line break at the very end."""
    compact = rgw(rows, is_truncated=is_truncated)
    return (
        compact.replace(b"<Contents>", b"\n  <Contents>\n    ")
        .replace(b"</LastModified><ETag>", b"</LastModified>\n    <ETag>")
        .replace(b"</Size><", b"</Size>\n    <")
        .replace(b"</ListB", b"\n</ListB")
        + b"\n"
    )


FLAVOURS: dict[str, Callable[..., bytes]] = {
    "rgw": rgw,
    "aws": aws,
    "minio": minio,
    "plain": plain,
    "pretty": pretty,
}


def _bool(value: object) -> str:
    return str(bool(value)).lower()


# What a server can send as often as it likes; each means something to one pattern or another.
REPEATED = [
    *(b" ", b"\n", b"<", b">", b"</", b"&", b"&#", b"&#x1", b"&amp;", b"%", b"%2F", b"a", b"1"),
    *(b"<?xml ", b"<?xml?>", b"?>", b"<!--", b"<!", b"<ListBucketResult "),
    *(b"<IsTruncated>", b"<IsTruncated> ", b"<IsTruncated>true", b">false", b"</IsTruncated>"),
    *(b"<KeyCount>", b"<KeyCount>1", b"<NextContinuationToken>", b"<StartAfter>", b"<Prefix>"),
    *(b"<Contents>", b"</Contents>", b"<Contents></Contents>", b"<Contents/>"),
    *(b"<CommonPrefixes/>", b"<Contents><Key>", b"<Contents> <Key>a</Key>", b"<Key>a</Key>"),
    *(b"<a:", b"<a", b"<a>", b"<LastModified>", b"<ETag>", b"<ETag>&quot;", b"<ETag ", b"<Size>"),
    *(
        b"<Size>1</Size>",
        b"<Error>",
        b"<Code>",
        b"<Code>a",
        b"<Region>&",
        b"<Endpoint>a</Endpoint>",
    ),
]
_ROOT = b"<ListBucketResult>"
_HALF_A_ROW = (
    b"<Contents><Key>a</Key><LastModified>2024-05-01T12:34:56.789Z</LastModified><ETag>e</ETag>"
)


def adversarial(unit: bytes, times: int) -> list[bytes]:
    """Put ``unit`` so often into bodies, one for each place where a parser may look at it."""
    repeated = unit * times
    whole = rgw([Row("a"), Row("b")])
    key = whole.index(b"b</Key>")
    return [
        repeated,
        b'<?xml version="1.0"?>' + repeated,
        b"<Error>" + repeated,
        b"<ListBucketResult " + repeated,
        _ROOT + repeated + b"</ListBucketResult>",
        _ROOT + b"<IsTruncated>" + repeated + b"</ListBucketResult>",
        _ROOT + b"<KeyCount>1" + repeated + b"</ListBucketResult>",
        _ROOT + b"<IsTruncated>true</IsTruncated>" + _HALF_A_ROW + repeated + b"</Contents>"
        b"</ListBucketResult>",
        whole.replace(b"<Name>", repeated + b"<Name>"),
        whole.replace(b"<Owner>", repeated + b"<Owner>"),
        whole[:key] + repeated + whole[key:],
        whole.replace(b"</ListBucketResult>", repeated + b"</ListBucketResult>"),
    ]
