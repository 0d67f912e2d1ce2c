"""One call of a webhook: over TLS, to the address that was looked at, and what is said where it fails."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hector.runtime.push.targets import Targets
from hector.runtime.push.webhooks import Answer, Webhooks
from tests.fakes.webhook import Reaction, Receiver
from tests.servers.certificates import Certificates, ServerFiles, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def receiver(files: ServerFiles) -> Receiver:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return Receiver(context)


@dataclass
class Names:
    """Each leads to the same addresses."""

    addresses: Sequence[str] = ("127.0.0.1",)
    looks: int = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.looks += 1
        return self.addresses


async def post(
    url: str,
    *,
    names: Names | None = None,
    allow: Sequence[str] = ("127.0.0.0/8", "localhost", "*.example.com"),
    timeout: float = 20,
    times: int = 1,
) -> Answer:
    webhooks = Webhooks(Targets(allow, names or Names()), timeout=timeout)
    try:
        answers = [await webhooks.post(url, {"content-type": "text/plain"}, b"hello") for _ in range(times)]
    finally:
        await webhooks.close()
    return answers[-1]


async def test_a_webhook_is_called_over_tls(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.client.ca))
    async with receiver(certificates.server) as hook:
        assert await post(f"{hook.url}/x", times=2) == Answer(204)
        assert [(got.path, got.body) for got in hook.got] == [("/x", b"hello")] * 2
        assert hook.connections == 1


def _other_ca(certificates: Certificates) -> tuple[Path, ServerFiles, str]:
    return certificates.client.other_ca, certificates.server, "localhost"


def _expired(certificates: Certificates) -> tuple[Path, ServerFiles, str]:
    return certificates.client.ca, certificates.expired, "localhost"


def _other_name(certificates: Certificates) -> tuple[Path, ServerFiles, str]:
    """The certificate has the address that is connected to, and not the name that was meant."""
    return certificates.client.ca, certificates.server, "other.example.com"


@pytest.mark.parametrize("wrong", [_other_ca, _expired, _other_name])
async def test_a_certificate_that_does_not_hold_is_refused(
    certificates: Certificates, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, files, host = wrong(certificates)  # type: ignore[operator]
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with receiver(files) as hook:
        answer = await post(hook.url.replace("localhost", host))
        assert answer == Answer(None, "SSLCertVerificationError")
        assert not hook.got


async def test_a_name_is_looked_up_once_for_a_connection() -> None:
    names = Names(["10.0.0.1", "127.0.0.1"])
    async with Receiver() as hook:
        assert (await post(f"http://127.0.0.1:{hook.port}/", names=names)).taken
    assert names.looks == 1


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    async with Receiver() as hook:
        names = Names(["127.0.0.2", "127.0.0.1"])
        assert (await post(hook.url, names=names)).taken


async def test_what_leads_inside_is_not_called() -> None:
    async with Receiver() as hook:
        url = f"https://example.org:{hook.port}/"
        answer = await post(url, names=Names(["127.0.0.1"]), allow=["*.example.com"])
        assert not answer.taken
        assert "not public" in answer.why
        assert hook.connections == 0


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Receiver() as hook:
        assert (await post(hook.url)).taken


@pytest.mark.parametrize(
    ("reaction", "answer"),
    [
        (Reaction(200, body=b"fine"), Answer(200)),
        (Reaction(301, {"location": "http://localhost/"}), Answer(301)),
        (Reaction(410), Answer(410)),
        (Reaction(429, {"Retry-After": "7"}), Answer(429, retry_after=7.0)),
        (Reaction(503, {"Retry-After": "86400"}), Answer(503, retry_after=3600.0)),
        (Reaction(503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), Answer(503)),
        (Reaction(503, {"Retry-After": "-1"}), Answer(503)),
        (Reaction(drops=True), Answer(None, "RemoteProtocolError")),
    ],
)
async def test_an_answer_is_its_status(reaction: Reaction, answer: Answer) -> None:
    async with Receiver() as hook:
        hook.react(reaction)
        found = await post(hook.url)
        if reaction.drops:
            assert not found.taken
            assert found.why
        else:
            assert found == answer
        assert found.taken == (reaction.status == 200)
        assert found.gone == (reaction.status == 410)


async def test_headers_without_an_end_are_not_read() -> None:
    async with Receiver() as hook:
        hook.react(Reaction(200, {"x-long": "x" * 10**6}))
        answer = await post(hook.url)
        assert not answer.taken


async def test_silence_has_an_end() -> None:
    async with Receiver() as hook:
        hook.react(Reaction(holds=True))
        assert await post(hook.url, timeout=0.1) == Answer(None, "no answer within 0.1 s")


async def test_a_name_that_is_not_found_in_time_is_silence() -> None:
    class Silent(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            return ()

    answer = await post("https://example.com/", names=Silent(), timeout=0.1)
    assert answer == Answer(None, "no answer within 0.1 s")


async def test_nobody_there_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = await post(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert answer == Answer(None, "connection refused")


async def test_a_name_without_an_address_is_said() -> None:
    class Unknown(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")

    assert await post("https://example.com/", names=Unknown()) == Answer(None, "gaierror")
