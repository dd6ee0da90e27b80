"""Services that start on demand: a listener takes the place of each one until the first connection.

A client only has to connect: the worker for an application that asks for Redis, the application itself, or a person's
redis-cli. The first connection is held until the service runs, and is then closed. The client connects again.
"""

import socket
import sys
import threading
from collections.abc import Callable

from stack.errors import PlatformError

# Several clients may connect while the service starts. More than this many are refused, and try again.
BACKLOG = 64


class Doorbell:
    """Listen on a service's port until the first connection, or until it is taken down."""

    def __init__(self, name: str, port: int, answer: Callable[[], None]) -> None:
        self._name = name
        self._port = port
        self._answer = answer
        self._listener: socket.socket | None = None
        self._visitors: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_answering = False
        self.message = ""

    def put_up(self) -> None:
        """Listen. If another process holds the port, set the message; the next call tries again."""
        with self._lock:
            if self._listener is not None or self._is_answering:
                return
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", self._port))
                listener.listen(BACKLOG)
            except OSError as error:
                listener.close()
                self.message = f"cannot wait for connections on port {self._port}: {error.strerror}"
                return
            self._listener, self.message = listener, ""
        threading.Thread(target=self._wait, args=(listener,), name=f"{self._name}-doorbell", daemon=True).start()

    def take_down(self) -> None:
        """Release the port for the service. Connections that are already open stay open."""
        with self._lock:
            if self._listener is not None:
                # This wakes the thread in accept(); close() alone does not.
                self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None

    def let_go(self) -> None:
        """Close the held connections, because the service is running or will not start."""
        with self._lock:
            visitors, self._visitors = self._visitors, []
        for visitor in visitors:
            visitor.close()

    def _wait(self, listener: socket.socket) -> None:
        try:
            visitor, _ = listener.accept()
        except OSError:
            return
        with self._lock:
            self._visitors.append(visitor)
            self._is_answering = True
        self.take_down()
        try:
            self._answer()
        except PlatformError as error:
            self.message = str(error)
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            self.let_go()
        finally:
            # From now on the desired state decides what listens on the port.
            self._is_answering = False
