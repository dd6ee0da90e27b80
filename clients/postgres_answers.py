"""PostgreSQL's answers to an application's login, and about its free connections."""

from plattr.objects import FrozenModel


class LoginFailure(FrozenModel):
    """Why the server refuses an application's login."""

    cause: str
    """The server's own text."""
    is_password: bool
    """The password is wrong, or has expired. If False, it is right, and the login fails for another reason."""


class Room(FrozenModel):
    """How many connections the role and the server have and may have: the row that `sql.ROOM` returns."""

    role_sessions: int
    role_limit: int
    """-1: no limit."""
    sessions: int
    server_limit: int
    """Without the connections that are reserved for admins."""
    may_connect: bool

    @property
    def is_role_full(self) -> bool:
        """Tell whether the role has as many connections as it may have."""
        return 0 <= self.role_limit <= self.role_sessions

    @property
    def is_server_full(self) -> bool:
        """Tell whether the server has no more connections for applications."""
        return self.server_limit <= self.sessions
