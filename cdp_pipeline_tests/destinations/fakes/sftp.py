"""A real SFTP server, kept in a folder, that can hang up after a file got its name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

from cdp_pipeline.spec.destination import Sftp
from cdp_pipeline_tests.destinations.fakes.file import LACKS, picked_up
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.waiting import PATIENCE, free_port

PASSWORD = "a password that only tests know"


@lru_cache
def key(name: str) -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519", comment=name)


def public(name: str) -> str:
    return key(name).export_public_key().decode().strip()


def sftp(port: int, **fields: Any) -> Sftp:
    given = {"name": "drop", "dry_run": False, "rate": 100_000, "host": "127.0.0.1", "port": port,
             "host_key": public("host"), "username": "shop", "password": PASSWORD, "folder": "in"}  # fmt: skip
    return Sftp(kind="destination", type="sftp", description="A partner's drop.", **{**given, **fields})


class SftpServer:
    """Serves `folder` to `shop` by password or by the key 'client'. `posix`: whether it can rename over a file."""

    def __init__(self, folder: Path, *, posix: bool = True) -> None:
        self._folder, self._posix = folder, posix
        self.logins = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.sessions: list[asyncssh.SSHServerConnection] = []

    @property
    def port(self) -> int:
        return int(self._server.get_port())

    def hang_up(self) -> None:
        """End every session, as a server does that has not heard anything for long."""
        for session in self.sessions:
            self._loop.call_soon_threadsafe(session.abort)

    def __enter__(self) -> SftpServer:
        whole = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
                whole.sessions.append(connection)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("shop", PASSWORD)

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, given: asyncssh.SSHKey) -> bool:
                return username == "shop" and given == key("client").convert_to_public()

            def auth_completed(self) -> None:
                whole.logins += 1

        class Files(asyncssh.SFTPServer):
            def __init__(self, channel: Any) -> None:
                super().__init__(channel, chroot=str(whole._folder).encode())

            def posix_rename(self, old: bytes, new: bytes) -> None:
                if not whole._posix:
                    raise asyncssh.SFTPOpUnsupported("no")
                self.rename_over(old, new)

            def rename(self, old: bytes, new: bytes) -> None:
                if Path(self.map_path(new).decode()).exists():
                    raise asyncssh.SFTPFailure("there is one")
                self.rename_over(old, new)

            def rename_over(self, old: bytes, new: bytes) -> None:
                source, target = (Path(self.map_path(name).decode()) for name in (old, new))
                silent = b"silent-" in source.read_bytes() and not target.exists()
                source.replace(target)
                if silent:
                    self.channel.get_connection().abort()

        async def listen() -> Any:
            return await asyncssh.create_server(
                Login, "127.0.0.1", 0, server_host_keys=[key("host")], sftp_factory=Files
            )

        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for session in self.sessions:
                session.abort()
            self._server.close()
            await self._server.wait_closed()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    place = folder / "served" / "in"
    place.mkdir(parents=True)
    with SftpServer(folder / "served") as server:
        yield Bench(
            sftp(server.port),
            arrived=lambda: picked_up(place),
            absent=sftp(free_port()),
            locked=sftp(server.port, password="another password"),
            lacks={**LACKS, "wait": "SFTP has no word for 'later'"},
        )
