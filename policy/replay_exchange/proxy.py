"""A loopback CONNECT proxy that leads known hosts to one port, and nobody anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Container

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REMEMBERED = 1000


class Proxy:
    """The only way out of a client that uses it: every other host is refused.

    Parameters
    ----------
    hosts
        Names that are led to ``server_port`` of this machine.
    server_port
        Where the TLS server listens.
    """

    def __init__(self, hosts: Container[str], server_port: int) -> None:
        self._hosts = hosts
        self._server_port = server_port
        self._pipes: set[asyncio.Task[None]] = set()
        self.refused: deque[str] = deque(maxlen=REMEMBERED)

    async def start(self, port: int = 0) -> int:
        """Listen on loopback; return the port."""
        self._server = await asyncio.start_server(self._tunnel, LOOPBACK, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close the port and every tunnel."""
        self._server.close()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)
        # A cancelled tunnel is the proxy's end; an incomplete head a client that went away.
        with contextlib.suppress(
            asyncio.CancelledError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            await self._connect(reader, writer)
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target = (*head.split()[:2], "", "")[:2]  # a head may be empty
        host = target.partition(":")[0]
        if method != "CONNECT" or host not in self._hosts:
            self.refused.append(host)
            writer.write(REFUSED)
            await writer.drain()
            return
        there, back = await asyncio.open_connection(LOOPBACK, self._server_port)
        writer.write(ESTABLISHED)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()
