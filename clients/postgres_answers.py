"""What PostgreSQL says of an application's login, and of the room it has."""

from plattr.objects import FrozenModel


class LoginFailure(FrozenModel):
    """Why the server does not let an application in."""

    cause: str
    """The server's own words."""
    is_password: bool
    """The password is wrong, or has expired; otherwise it is right, and something else is in the way."""


class Room(FrozenModel):
    """Who has how many connections: the row that `sql.ROOM` returns."""

    role_sessions: int
    role_limit: int
    """-1: no limit."""
    sessions: int
    server_limit: int
    """Those that are kept for admins are not counted."""
    may_connect: bool

    @property
    def is_role_full(self) -> bool:
        """Tell whether the role has all it may have."""
        return 0 <= self.role_limit <= self.role_sessions

    @property
    def is_server_full(self) -> bool:
        """Tell whether applications get no more connections."""
        return self.server_limit <= self.sessions
