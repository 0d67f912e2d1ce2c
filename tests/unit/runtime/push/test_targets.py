"""Which webhooks may be called."""

from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from hector.runtime.push.targets import TargetError, Targets, is_public

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00::1",
    "64:ff9b::1.1.1.1",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:1.1.1.1",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:101:101::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(TargetError):
        Targets().parse(f"https://{host}/hook")


@pytest.mark.parametrize(
    ("url", "netloc", "path"),
    [
        ("https://example.com", "example.com", "/"),
        ("https://Example.COM/Hook?a=b&c", "example.com", "/Hook?a=b&c"),
        ("https://example.com:443/", "example.com", "/"),
        ("https://example.com:8443/%2F", "example.com:8443", "/%2F"),
        ("HTTPS://1.1.1.1/x", "1.1.1.1", "/x"),
        ("https://[2606:4700::1]:8443/x", "[2606:4700::1]:8443", "/x"),
    ],
)
def test_a_url_is_taken_apart(url: str, netloc: str, path: str) -> None:
    target = Targets().parse(url)
    assert (target.scheme, target.netloc, target.path) == ("https", netloc, path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no URL has"),
        ("example.com/hook", "no URL that can be called"),
        ("ftp://example.com/", "no URL that can be called"),
        ("file:///etc/passwd", "no URL that can be called"),
        ("gopher://example.com/", "no URL that can be called"),
        ("https://", "no URL that can be called"),
        ("https:///path", "no URL that can be called"),
        ("https://example.com:0/", "no URL that can be called"),
        ("https://example.com:99999/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://user@example.com/", "a user"),
        ("https://user:password@example.com/", "a user"),
        ("https://1.1.1.1@127.0.0.1/", "a user"),
        ("https://example.com/#part", "a fragment"),
        ("https://example.com\\@127.0.0.1/", "no URL has"),
        ("https://exa mple.com/", "no URL has"),
        ("https://example.com/\r\nX-Evil: 1", "no URL has"),
        ("https://ex\u00e4mple.com/", "no URL has"),
        ("https://127.0.0.1%2f.example.com/", "neither a name nor an address"),
        ("http://example.com/", "not encrypted"),
        ("http://1.1.1.1/", "not encrypted"),
        (f"https://example.com/{'x' * 2048}", "at most 2048"),
    ],
)
def test_what_is_no_webhook_is_refused(url: str, why: str) -> None:
    with pytest.raises(TargetError, match=why):
        Targets().parse(url)


def known(*addresses: str) -> "Resolver":
    return Resolver(addresses)


class Resolver:
    """Answers the same for each name."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.addresses


async def test_a_name_leads_to_its_public_addresses() -> None:
    targets = Targets(resolve=known("10.0.0.1", "1.1.1.1", "::1", "2606:4700::1", "1.1.1.1"))
    assert await targets.addresses("example.com", 443) == ["1.1.1.1", "2606:4700::1"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_a_name_that_leads_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(TargetError, match="not public"):
        await Targets(resolve=known(address)).addresses("example.com", 443)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "::1", "0"]
)
async def test_however_a_machines_own_address_is_written(host: str) -> None:
    with pytest.raises(TargetError, match="not public"):
        await Targets().addresses(host, 443)


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example"])
async def test_a_name_that_no_host_can_have_leads_nowhere(host: str) -> None:
    Targets().parse(f"https://{host}/")
    with pytest.raises(OSError, match="no host has this name"):
        await Targets().addresses(host, 443)


async def test_a_name_that_the_operator_allows_leads_anywhere() -> None:
    targets = Targets(["Hooks.Internal", "*.svc.local"], known("10.0.0.1", "127.0.0.1"))
    for host in ("hooks.internal", "HOOKS.internal.", "a.svc.local", "b.a.svc.local"):
        assert targets.parse(f"http://{host}/x").scheme == "http"
        assert await targets.addresses(host.lower(), 80) == ["10.0.0.1", "127.0.0.1"]
    for host in ("internal", "a.hooks.internal", "svc.local", "xsvc.local", "a.svc.local.example.com"):
        with pytest.raises(TargetError):
            targets.parse(f"http://{host}/x")
        with pytest.raises(TargetError):
            await targets.addresses(host, 80)


async def test_a_network_that_the_operator_allows_is_reached_by_any_name() -> None:
    targets = Targets(["10.1.0.0/16", "::1"], known("10.1.2.3", "10.2.0.1", "::1", "127.0.0.1"))
    assert await targets.addresses("example.com", 443) == ["10.1.2.3", "::1"]
    assert targets.parse("http://10.1.9.9:8080/x").port == 8080
    assert targets.parse("http://[::1]/x").host == "::1"
    for url in (
        "http://example.com/",
        "http://10.2.0.1/",
        "https://127.0.0.1/",
        "https://[::ffff:10.1.0.1]/",
    ):
        with pytest.raises(TargetError):
            targets.parse(url)
