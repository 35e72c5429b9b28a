"""A folder of an SFTP server that is known by its host key: files appear there whole, one for each batch."""

from __future__ import annotations

import asyncio
import posixpath
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.destinations.drop import DropConnection, Parcel, Trouble
from cdp_pipeline.destinations.http import WAIT_AFTER_REFUSED_KEY
from cdp_pipeline.spec.destination import Sftp

if TYPE_CHECKING:
    import asyncssh


def connect(spec: Sftp) -> SftpConnection:
    return SftpConnection(spec)


class SftpConnection(DropConnection):
    """Keeps one session open over several files and opens it again where the server has closed it."""

    def __init__(self, spec: Sftp) -> None:
        super().__init__(spec)
        try:
            import asyncssh
        except ImportError:
            raise DestinationError("SFTP needs asyncssh: pip install 'cdp-pipeline[sftp]'") from None
        self._ssh = asyncssh
        self._spec = spec
        self._options = _options(asyncssh, spec)
        self._runner = asyncio.Runner()
        self._session: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None

    def _put(self, parcel: Parcel, timeout: timedelta, now: datetime) -> Trouble | None:
        ssh = self._ssh
        try:
            self._runner.run(asyncio.wait_for(self._write(parcel), timeout.total_seconds()))
            return None
        except ssh.HostKeyNotVerifiable:
            trouble = Trouble("the server's host key is not the one declared", WAIT_AFTER_REFUSED_KEY, refused_us=True)
        except ssh.PermissionDenied:
            trouble = Trouble("the login is refused", WAIT_AFTER_REFUSED_KEY, refused_us=True)
        except (ssh.SFTPNoSuchFile, ssh.SFTPNoSuchPath, ssh.SFTPPermissionDenied) as error:
            words = f"the folder is not there or not ours to write to ({type(error).__name__})"
            trouble = Trouble(words, WAIT_AFTER_REFUSED_KEY)
        except (OSError, ssh.Error) as error:
            trouble = Trouble(f"the SFTP server cannot be used ({type(error).__name__})")
        self._hang_up()
        return trouble

    async def _write(self, parcel: Parcel) -> None:
        sftp = await self._open()
        unfinished = posixpath.join(self._spec.folder, f".{parcel.name}.part")
        finished = posixpath.join(self._spec.folder, parcel.name)
        async with sftp.open(unfinished, "wb") as file:
            await file.write(parcel.content)
        try:
            await sftp.posix_rename(unfinished, finished)
        except self._ssh.SFTPOpUnsupported:
            # A plain rename takes no place that is taken: there it stands from the time before, and is the same.
            if await sftp.exists(finished):
                await sftp.remove(finished)
            await sftp.rename(unfinished, finished)

    async def _open(self) -> asyncssh.SFTPClient:
        if self._sftp is not None:
            try:
                await self._sftp.stat(self._spec.folder)
                return self._sftp
            except (OSError, self._ssh.Error):
                self._hang_up()
        self._session = await self._ssh.connect(self._spec.host, self._spec.port, **self._options)
        self._sftp = await self._session.start_sftp_client()
        return self._sftp

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.abort()
        self._session = self._sftp = None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            try:
                self._runner.run(asyncio.wait_for(self._session.wait_closed(), 5))
            except (OSError, self._ssh.Error):
                self._session.abort()
            self._session = self._sftp = None
        self._runner.close()


def _options(ssh: Any, spec: Sftp) -> dict[str, Any]:
    """How to log in: with what is declared alone, never with keys, agents or settings found on this machine."""
    try:
        host_key = ssh.import_public_key(spec.host_key)
    except (ssh.KeyImportError, ValueError):
        raise DestinationError("'host_key' is no public key such as 'ssh-ed25519 AAAA…'") from None
    try:
        own_key = None if spec.private_key is None else [ssh.import_private_key(spec.private_key)]
    except (ssh.KeyImportError, ssh.KeyEncryptionError, ValueError):
        raise DestinationError("'private_key' is no private key without a passphrase") from None
    seconds = spec.timeout.total_seconds()
    return {
        "username": spec.username, "password": spec.password, "client_keys": own_key, "agent_path": None,
        "known_hosts": ([host_key], [], []), "config": None, "connect_timeout": seconds, "login_timeout": seconds,
    }  # fmt: skip
