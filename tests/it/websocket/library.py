"""The library that people use with Python, on both sides: library.py serve | talk URL KEY [CA] | stay URL KEY [CA]"""
import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

LARGE = 1 << 20


def tell(*words):
    print(*words, flush=True)


async def answer(ws):
    """What a path says is done; else what comes goes back."""
    path = ws.request.path
    if path == "/close":
        await ws.close(4002, "go away")
    elif path == "/ping":
        await (await ws.ping(b"are you there"))
        await ws.send("yes")
    elif path == "/pieces":
        await ws.send([piece async for piece in ws.recv_streaming()])
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass
    tell("closed", path, ws.close_code, ws.close_reason)


async def run_server():
    async with serve(answer, "127.0.0.1", 0, max_size=2 * LARGE, subprotocols=["chat"], ping_interval=None) as server:
        tell("port", server.sockets[0].getsockname()[1])
        await server.serve_forever()


class Site:
    """Keyward, as those see it who have a key."""
    def __init__(self, url, key, ca=None):
        self.url, self.key = url, key
        self.tls = {"ssl": ssl.create_default_context(cafile=ca), "server_hostname": "localhost"} if ca else {}

    def open(self, path, key=None, **more):
        headers = {"X-API-Key": key or self.key}
        return connect(self.url + path, additional_headers=headers, max_size=2 * LARGE, proxy=None, ping_interval=None,
                       subprotocols=["chat"], **self.tls, **more)


async def talk(site):
    for compression in ("deflate", None):
        async with site.open("/echo?room=1", compression=compression) as ws:
            assert ws.subprotocol == "chat"
            for message in ("text", "\u00fc\u20ac\U0001f600", "", b"binary \0\xff", b"", "x" * LARGE, bytes(range(256)) * (LARGE // 256)):
                await ws.send(message)
                assert await ws.recv() == message, message[:20]
            await (await ws.ping(b"here"))
            await ws.close(4001, "done")
            assert ws.close_code == 4001, ws.close_code
    async with site.open("/pieces") as ws:
        await ws.send(["one ", "two ", "three"])
        assert [piece async for piece in ws.recv_streaming()][:3] == ["one ", "two ", "three"]
    async with site.open("/ping") as ws:
        assert await ws.recv() == "yes"
    async with site.open("/close") as ws:
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4002, "go away"), closed
    try:
        async with site.open("/refused", key=site.key[:-1]):
            raise AssertionError("a wrong key opens")
    except InvalidStatus as refused:
        assert refused.response.status_code == 401, refused
        assert "X-Request-Id" in refused.response.headers
    tell("all is well")


async def stay(site):
    """Stays until it is told to go, and says how."""
    async with site.open("/echo") as ws:
        await ws.send("in")
        tell(await ws.recv())
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            tell("out", closed.rcvd.code)


if sys.argv[1] == "serve":
    asyncio.run(run_server())
else:
    asyncio.run({"talk": talk, "stay": stay}[sys.argv[1]](Site(*sys.argv[2:])))
