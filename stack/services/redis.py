"""Redis or Valkey, with users. The first connection starts it."""

import hashlib
import socket
from pathlib import Path

from stack.folders import write_private
from stack.processes import Command
from stack.services.base import Service
from stack.tools.debian import library_path

# The worker's own account. The default user, which needs no password, is off.
ADMIN = "plattr"


class Redis(Service):
    """One server on the loopback. Its users and data survive a restart."""

    name = "redis"
    ports = ("redis",)
    is_on_demand = True

    def prepare(self) -> None:
        """Create the file of users once. The server also stores the applications' users in it."""
        super().prepare()
        if not self._users.exists():
            digest = hashlib.sha256(self.site.credential("redis-admin").encode()).hexdigest()
            write_private(self._users, f"user default off\nuser {ADMIN} on #{digest} ~* &* +@all\n")

    def command(self) -> Command:
        """Start the server. It appends data to a file, without fsync, as everywhere on the local platform."""
        server = self.site.tool("redis-server")
        port = str(self.site.port("redis"))
        return Command(
            arguments=(
                *(server, "--bind", "127.0.0.1", "--port", port, "--dir", str(self.folder)),
                *("--aclfile", str(self._users), "--save", "", "--appendonly", "yes", "--appendfsync", "no"),
            ),
            environment={"LD_LIBRARY_PATH": library_path(Path(server))},
            folder=self.folder,
        )

    def is_healthy(self) -> bool:
        """Tell whether the server has read its data and accepts the worker's login."""
        try:
            with socket.create_connection(("127.0.0.1", self.site.port("redis")), timeout=2) as connection:
                connection.sendall(f"AUTH {ADMIN} {self.site.credential('redis-admin')}\r\nPING\r\n".encode())
                answer = b""
                while not answer.endswith(b"+PONG\r\n"):
                    part = connection.recv(1024)
                    answer += part
                    if not part or b"-" in answer:
                        return False
        except OSError:
            return False
        return True

    @property
    def _users(self) -> Path:
        return self.folder / "users.acl"
