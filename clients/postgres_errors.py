"""Turn PostgreSQL's refusals into Plattr's errors."""

from psycopg import Error

from plattr.errors import BackendRefused, BackendUnavailable, Conflict, PlattrError

# Somebody else was quicker, or holds a lock. The next attempt reads again and sees what is left to do.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = frozenset(
    {
        "23505",  # unique_violation, in the catalogues
        "2BP01",  # dependent_objects_still_exist: made since it was read
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "42704",  # undefined_object: dropped since it was read
        "42P01",  # undefined_table, as when somebody dropped the private schema
        "42710",  # duplicate_object: made since it was read
        "42P06",  # duplicate_schema
        "3F000",  # invalid_schema_name: dropped since it was read
        "55006",  # object_in_use
        "55P03",  # lock_not_available
        "XX000",  # internal_error: "tuple concurrently updated"
    }
)
# Connection trouble, resources, shutdown and restart, timeouts (57014 is statement_timeout, 25P03 the idle one).
_OUTAGES = ("08", "53", "57", "58", "25P03")
# Resources that do not return by waiting: the lock table or the disk is too small for the demand.
_LACKING = frozenset({"53100", "53200", "53400"})
# The messages of a bad value and of a syntax error quote the text that failed, and the text may be a literal.
_QUOTING = ("22", "42601")
_REMEDIES = {
    "42501": "; give the admin CREATEROLE, CREATE on the database, and ADMIN OPTION on the roles it has to grant",
    "53100": "; give the server's disk room",
    "53200": "; end the session that has most of pg_locks, or raise the server's max_locks_per_transaction",
    "53400": "; raise the server's limit that it names",
}
# libpq reports a refused connection only as text, in the server's language. If this is not English, the error has no
# remedy.
_REFUSED = {
    "too many clients already": (
        "; end sessions or raise max_connections; where pg_stat_activity shows fewer, logins that were begun and never"
        " finished have the rest: set authentication_timeout to 5s, and bound each address before the server"
    ),
    "out of shared memory": _REMEDIES["53200"],
}


def translate(action: str, address: str, error: Error) -> PlattrError:
    """Return Plattr's error for an error of the server or of libpq."""
    # Never use the statement, the context or the detail: they quote values.
    state = error.sqlstate
    if state is None:
        cause = first_line(error)
        remedy = next((remedy for text, remedy in _REFUSED.items() if text in cause), "")
        return BackendUnavailable(f"cannot {action}: {address}: {type(error).__name__}: {cause}{remedy}")
    message = "message withheld" if state.startswith(_QUOTING) else error.diag.message_primary
    cause = f"{address} answers {state} ({type(error).__name__}): {message}"
    if state in _CONFLICTS:
        return Conflict(f"cannot {action}: {cause}")
    if state.startswith(_OUTAGES) and state not in _LACKING:
        return BackendUnavailable(f"cannot {action}: {cause}")
    return BackendRefused(f"cannot {action}: {cause}{_REMEDIES.get(state, '')}")


def first_line(error: Error) -> str:
    """Return libpq's text about a failed connection: host, port and cause, never the password."""
    return str(error).partition("\n")[0].strip().removeprefix("connection failed: ")
