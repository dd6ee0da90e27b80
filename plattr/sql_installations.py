"""The SQL texts of the row by which one installation holds a cluster's id; see docs/decisions/0027.

One statement decides, by the server's own clock: whoever shows the token that the row has, or finds the row forgotten,
writes the next one.
"""

from plattr.naming import PRIVATE_SCHEMA
from plattr.sql_private import INSTALLATIONS_TABLE

# A row: it is renewed. None: another has renewed it within the last `seconds`.
RENEW = f"""
INSERT INTO {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE} AS held (cluster, token, renewed)
VALUES (%(cluster)s, %(next)s, now())
ON CONFLICT (cluster) DO UPDATE SET token = excluded.token, renewed = excluded.renewed
WHERE held.token IN (%(current)s, %(next)s) OR held.renewed < now() - make_interval(secs => %(seconds)s)
RETURNING token
"""  # noqa: S608  names of ours

# How long ago a cluster's installation was last seen; no row: never.
SILENT_SECONDS = f"""
SELECT extract(epoch FROM now() - renewed)::int AS seconds
FROM {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE} WHERE cluster = %(cluster)s
"""  # noqa: S608  names of ours
