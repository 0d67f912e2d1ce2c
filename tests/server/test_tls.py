"""TLS on both ports: who is let in, and what is wrong with its files."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from hector.config import ServerSection, ServerTlsSection
from hector.domain.errors import ConfigError
from hector.runtime.patience import Patience
from hector.server.http.sharing import Counts, Share, SharedAccepting
from hector.server.listening import listen
from hector.server.serve import Ports, Server
from hector.server.tls import server_context
from tests.server.site import open_scripted, reply, said
from tests.servers.certificates import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def section(certificates: Certificates, *, client_ca: bool = False) -> ServerTlsSection:
    files = certificates.server
    return ServerTlsSection(cert=files.cert, key=files.key, client_ca=files.ca if client_ca else None)


@asynccontextmanager
async def serving(tls: ServerTlsSection, *, shared: SharedAccepting | None = None) -> AsyncIterator[Server]:
    runtime, _ = await open_scripted(names={"a": ("", "")})
    sockets = await listen("127.0.0.1", 0, patience=0)
    server = Server(ServerSection(tls=tls), Ports(sockets, 0, shared), Patience())
    await server.start()
    await server.open(runtime)
    yield server
    await server.stop()


def trusting(certificates: Certificates, *, shows: bool = False) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates.client.ca)
    if shows:
        made.load_cert_chain(certificates.client.cert, certificates.client.key)
    return made


async def ask(server: Server, context: ssl.SSLContext) -> Any:
    url = server.url.replace("127.0.0.1", "localhost")
    async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False) as client:
        answer = await client.post("/v1/agents/a/message:send", **said("say hi"))
    return answer.json()["task"]


async def call(server: Server, certificates: Certificates, *, shows: bool = False) -> str:
    client = certificates.client
    pair = (client.key.read_bytes(), client.cert.read_bytes()) if shows else (None, None)
    credentials = grpc.ssl_channel_credentials(client.ca.read_bytes(), *pair)
    async with grpc.aio.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
        message = a2a_pb2.Message(message_id="m", role=a2a_pb2.ROLE_USER, parts=[a2a_pb2.Part(text="say hi")])
        agent: Any = A2AServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await agent.SendMessage(a2a_pb2.SendMessageRequest(message=message))
    return str(answer.task.artifacts[0].parts[0].text)


@pytest.mark.parametrize("workers", [1, 2])
async def test_both_ports_speak_tls(certificates: Certificates, workers: int) -> None:
    file = Counts.new_file(workers)
    counts = Counts(file, workers)
    shared = SharedAccepting(Share(counts, 0), at_once=True) if workers > 1 else None
    async with serving(section(certificates), shared=shared) as server:
        assert server.url.startswith("https://")
        assert reply(await ask(server, trusting(certificates))) == "hi"
        assert await call(server, certificates) == "hi"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(server, ssl.create_default_context())
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(server.url.replace("https", "http") + "/health")
            card = await plain_card(server, certificates)
    assert card["url"].startswith("https://localhost:")
    os.close(file)


async def plain_card(server: Server, certificates: Certificates) -> Any:
    url = server.url.replace("127.0.0.1", "localhost")
    async with httpx.AsyncClient(base_url=url, verify=trusting(certificates), trust_env=False) as client:
        return (await client.get("/v1/agents/a/.well-known/agent-card.json")).json()


async def test_clients_may_have_to_show_a_certificate(certificates: Certificates) -> None:
    async with serving(section(certificates, client_ca=True)) as server:
        assert reply(await ask(server, trusting(certificates, shows=True))) == "hi"
        assert await call(server, certificates, shows=True) == "hi"
        with pytest.raises(httpx.TransportError):
            await ask(server, trusting(certificates))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(server, certificates)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_does_not_wait_for_who_never_greets(certificates: Certificates, workers: int) -> None:
    file = Counts.new_file(workers)
    counts = Counts(file, workers)
    shared = SharedAccepting(Share(counts, 0), at_once=True) if workers > 1 else None
    async with serving(section(certificates), shared=shared) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert reply(await ask(server, trusting(certificates))) == "hi"
        async with asyncio.timeout(10):
            await server.stop()
        writer.transport.abort()
    os.close(file)


def test_what_is_wrong_with_the_files_is_told(certificates: Certificates, tmp_path: Path) -> None:
    files, client = certificates.server, certificates.client
    nothing, empty = tmp_path / "none.pem", tmp_path / "empty.pem"
    empty.write_text("")
    for cert, key, client_ca, told in (
        (files.cert, nothing, None, "server.tls.key: .*none.pem cannot be read: no such file"),
        (nothing, files.key, None, "server.tls.cert: .*none.pem cannot be read: no such file"),
        (empty, files.key, None, "server.tls.cert: .*empty.pem holds no certificate in PEM"),
        (files.cert, empty, None, "server.tls.key: .*empty.pem holds no private key in PEM"),
        (files.cert, client.key, None, "server.tls.key: the key in .* does not belong to the certificate"),
        (files.cert, files.key, empty, "server.tls.client_ca: .*empty.pem holds no certificate in PEM"),
    ):
        with pytest.raises(ConfigError, match=told):
            server_context(ServerTlsSection(cert=cert, key=key, client_ca=client_ca))
