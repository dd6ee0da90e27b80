"""Services that start when somebody asks for them: a listener stands in for each until the first connection.

Whoever needs one only has to connect: the worker for an application that asks for Redis, that application itself, a
person's redis-cli. The first connection is held until the service runs, and then closed: its maker tries again.
"""

import socket
import sys
import threading
from collections.abc import Callable

from stack.errors import PlatformError

# Several may signal while the service comes up; more than this many are refused, and try again.
BACKLOG = 64


class Doorbell:
    """Listens at a service's port until it is opened or taken down."""

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
        """Listen; a port that somebody else holds is said in the message, and tried again at the next call."""
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
        """Leave the port to the service; who has connected already stays on the line."""
        with self._lock:
            if self._listener is not None:
                # Wakes the thread in accept(), which close() alone does not.
                self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None

    def let_go(self) -> None:
        """End the connections that were held: the service is there, or will not come."""
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
            # From here on the desired says what shall listen at the port.
            self._is_answering = False
