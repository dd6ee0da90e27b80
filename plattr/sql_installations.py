"""The SQL texts of the row by which one installation holds a cluster's id; see docs/decisions/0027.

One statement decides, by the server's own clock. An installation may write the next token in two cases: it shows the
token in the row, or the row has not been renewed for too long.
"""

from plattr.naming import PRIVATE_SCHEMA
from plattr.sql_private import INSTALLATIONS_TABLE

# A row: the installation has renewed it. None: another installation has renewed it within the last `seconds`.
RENEW = f"""
INSERT INTO {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE} AS held (cluster, token, renewed)
VALUES (%(cluster)s, %(next)s, now())
ON CONFLICT (cluster) DO UPDATE SET token = excluded.token, renewed = excluded.renewed
WHERE held.token IN (%(current)s, %(next)s) OR held.renewed < now() - make_interval(secs => %(seconds)s)
RETURNING token
"""  # noqa: S608  names of ours

# How many seconds ago a cluster's installation was last seen. No row: never.
SILENT_SECONDS = f"""
SELECT extract(epoch FROM now() - renewed)::int AS seconds
FROM {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE} WHERE cluster = %(cluster)s
"""  # noqa: S608  names of ours
