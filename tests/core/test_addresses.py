"""Which addresses may be called, however they are written."""

import pytest

from scanning.core.addresses import AddressRules, how_to_allow, parse

NOTHING_ALLOWED = AddressRules()
PRIVATE_ALLOWED = AddressRules(allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "us-iad-1.linodeobjects.com",
        "8.8.8.8",
        "134744072",
        "2606:4700::1111",
        "[2606:4700::1111]",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "1.2.3.4.5",
        "08.1",
        "256.1.1.1",
        "localhost.example.com",
    ],
)
def test_public_addresses_and_names_are_allowed(host):
    assert NOTHING_ALLOWED.problem_with_host(host) == ""


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.1", "loopback"),
        ("0x7f.1", "loopback"),
        ("0X7F000001", "loopback"),
        ("2130706433", "loopback"),
        ("017700000001", "loopback"),
        ("0177.0.0.1", "loopback"),
        ("127.0.0.1.", "loopback"),
        ("[::1]", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("localhost", "loopback"),
        ("a.LOCALHOST.", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:0:10.0.0.1", "private"),
        ("::ffff:0:127.0.0.1", "loopback"),
        ("64:ff9b:1::1", "private"),
        ("192.0.0.8", "private"),
        ("fec0::1", "private"),
        ("[3fff::1]", "private"),
        ("[5f00::1]", "private"),
        ("[100:0:0:1::1]", "private"),
    ],
)
def test_loopback_and_private_addresses_are_refused_unless_allowed(host, kind):
    problem = NOTHING_ALLOWED.problem_with_host(host)
    assert kind in problem
    assert "SECURITY_ALLOW_PRIVATE_ENDPOINTS" in how_to_allow(problem)
    assert PRIVATE_ALLOWED.problem_with_host(host) == ""


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("169.254.169.254", "link-local"),
        ("0xa9fea9fe", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("192.0.0.192", "metadata"),
        ("::ffff:0:169.254.169.254", "link-local"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("metadata.google.internal", "metadata"),
        ("metadata.goog.", "metadata"),
        ("0", "unspecified"),
        ("0.0.0.0", "unspecified"),  # noqa: S104 - a case, not a binding
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_what_is_never_a_bucket_is_refused_also_where_private_addresses_are_allowed(host, kind):
    assert kind in NOTHING_ALLOWED.problem_with_host(host)
    problem = PRIVATE_ALLOWED.problem_with_host(host)
    assert kind in problem
    assert "SECURITY_ALLOW_PRIVATE_ENDPOINTS" not in how_to_allow(problem)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::ffff:127.0.0.1", "localhost", "169.254.169.254", "fd12::1"]
)
def test_named_networks_are_allowed_whatever_they_are(host):
    rules = AddressRules.of(
        allow_private=False, networks="127.0.0.0/8, 169.254.169.254/32,fd12::/16"
    )

    assert rules.problem_with_host(host) == ""
    assert rules.problem_with_host("10.0.0.1") == "a private address"


@pytest.mark.parametrize("text", ["", "host", "1.2.3.4.5", "0x1.2.3.4.5", "1.256", "1.2.3.256x"])
def test_what_is_no_address_is_a_name(text):
    assert parse(text) is None or text == "1.256"
