"""The SQL texts that follow pg_depend: what others made of an owner's things, and what can be dropped by itself.

Names in the answers are a tenant's words. The server quotes them, and adds their schema.
"""

from plattr import sql_by_id

# Everything in this database that is directly the owner's: his roles own it, or it lies in his schemas.
_SEEDS = """
SELECT classid, objid FROM pg_shdepend
WHERE refclassid = 'pg_authid'::regclass AND refobjid = ANY (%(roles)s) AND deptype = 'o'
    AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION
SELECT classid, objid FROM pg_depend
WHERE refclassid = 'pg_namespace'::regclass AND refobjid = ANY (%(schemas)s) AND deptype = 'n'
    -- An expression can name the schema from elsewhere.
    AND CASE classid
        WHEN 'pg_class'::regclass THEN EXISTS (SELECT FROM pg_class WHERE oid = objid AND relnamespace = refobjid)
        WHEN 'pg_proc'::regclass THEN EXISTS (SELECT FROM pg_proc WHERE oid = objid AND pronamespace = refobjid)
        WHEN 'pg_type'::regclass THEN EXISTS (SELECT FROM pg_type WHERE oid = objid AND typnamespace = refobjid)
        WHEN 'pg_statistic_ext'::regclass THEN EXISTS (
            SELECT FROM pg_statistic_ext WHERE oid = objid AND stxnamespace = refobjid
        )
        ELSE classid NOT IN (
            'pg_attrdef'::regclass, 'pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_policy'::regclass,
            'pg_trigger'::regclass
        )
    END
UNION
SELECT 'pg_namespace'::regclass, schema.oid FROM unnest(%(schemas)s::oid[]) AS schema (oid)
"""
# Only what one transaction is about to drop.
_CHOSEN = (
    "SELECT chosen.classid, chosen.objid FROM unnest(%(classes)s::oid[], %(objects)s::oid[]) AS chosen (classid, objid)"
)

# All that DROP ... CASCADE of the seeds would drop, by pg_depend. A part takes its whole with it: a view's rule takes
# the view (i), an extension's member takes the extension (e).
_CLOSURE = """
closure (classid, objid, objsubid) AS (
    SELECT classid, objid, 0 FROM ({seeds}) AS seed
    UNION
    SELECT next.classid, next.objid, next.objsubid
    FROM closure AS base
    CROSS JOIN LATERAL (
        SELECT classid, objid, objsubid FROM pg_depend
        WHERE refclassid = base.classid AND refobjid = base.objid
            AND (base.objsubid = 0 OR refobjsubid = base.objsubid)
        UNION ALL
        SELECT refclassid, refobjid, refobjsubid FROM pg_depend
        WHERE classid = base.classid AND objid = base.objid AND deptype IN ('i', 'e')
    ) AS next
)
"""

# The same closure, with a state for each thing. A thing of another owner that depends by name holds the deletion. A
# thing that depends on the seeds by object id alone does not. It goes with the seeds, and so do its own dependents, or
# it is severed from the seeds and stays.
_HOLDS, _GOES, _SEVERED = 2, 1, 0
_JUDGED_CLOSURE = """
closure (classid, objid, objsubid, state) AS (
    SELECT classid, objid, 0, {holds} FROM ({seeds}) AS seed
    UNION
    SELECT next.classid, next.objid, next.objsubid,
        CASE WHEN NOT next.is_by_id THEN base.state WHEN next.is_severable THEN {severed} ELSE {goes} END
    FROM closure AS base
    CROSS JOIN LATERAL (
        SELECT dep.classid, dep.objid, dep.objsubid, {is_by_id} AS is_by_id, {is_severable} AS is_severable
        FROM pg_depend AS dep
        WHERE dep.refclassid = base.classid AND dep.refobjid = base.objid
            AND (base.objsubid = 0 OR dep.refobjsubid = base.objsubid)
        UNION ALL
        SELECT refclassid, refobjid, refobjsubid, false, false FROM pg_depend
        WHERE classid = base.classid AND objid = base.objid AND deptype IN ('i', 'e')
            -- A column of a composite type goes without the type.
            AND (base.objsubid = 0 OR objsubid = base.objsubid)
    ) AS next
    WHERE base.state > {severed}
)
"""

# The owner and the schema of each thing. These things have an owner of their own: the catalogue, and the columns of
# owner and schema.
_OWNED = (
    ("pg_class", "relowner", "relnamespace"),
    ("pg_proc", "proowner", "pronamespace"),
    ("pg_type", "typowner", "typnamespace"),
    ("pg_namespace", "nspowner", "oid"),
    ("pg_operator", "oprowner", "oprnamespace"),
    ("pg_opclass", "opcowner", "opcnamespace"),
    ("pg_opfamily", "opfowner", "opfnamespace"),
    ("pg_collation", "collowner", "collnamespace"),
    ("pg_conversion", "conowner", "connamespace"),
    ("pg_statistic_ext", "stxowner", "stxnamespace"),
    ("pg_ts_config", "cfgowner", "cfgnamespace"),
    ("pg_ts_dict", "dictowner", "dictnamespace"),
    ("pg_extension", "extowner", "extnamespace"),
    ("pg_foreign_server", "srvowner", "NULL"),
    ("pg_event_trigger", "evtowner", "NULL"),
)
# A part has its whole's owner: the part's catalogue, the column that refers to the whole, the whole's catalogue.
_PARTS = (
    ("pg_constraint", "conrelid", "pg_class"),
    ("pg_constraint", "contypid", "pg_type"),
    ("pg_trigger", "tgrelid", "pg_class"),
    ("pg_rewrite", "ev_class", "pg_class"),
    ("pg_policy", "polrelid", "pg_class"),
    ("pg_attrdef", "adrelid", "pg_class"),
    ("pg_amop", "amopfamily", "pg_opfamily"),
    ("pg_amproc", "amprocfamily", "pg_opfamily"),
    ("pg_publication_rel", "prpubid", "pg_publication"),
    ("pg_publication_namespace", "pnpubid", "pg_publication"),
)
_COLUMNS = {catalogue: f"{owner}, {namespace}" for catalogue, owner, namespace in _OWNED} | {
    "pg_publication": "pubowner, NULL"
}
# A cast has no owner. It counts as a thing of the owner of a type that takes part in it and is not dropped.
_OF_CASTS = """
    SELECT typowner, typnamespace FROM pg_cast JOIN pg_type AS whole ON whole.oid IN (castsource, casttarget)
        WHERE {classid} = 'pg_cast'::regclass AND pg_cast.oid = {objid} AND whole.oid >= 16384
"""


def _owners(classid: str, objid: str) -> str:
    """Return the query for owner and schema of the thing that two columns name."""
    queries = [
        f"SELECT {_COLUMNS[catalogue]} FROM {catalogue}"  # noqa: S608  texts of ours alone
        f" WHERE {classid} = '{catalogue}'::regclass AND oid = {objid}"
        for catalogue, _, _ in _OWNED
    ]
    queries += [
        f"SELECT {_COLUMNS[whole]} FROM {part} JOIN {whole} AS whole ON whole.oid = {column}"  # noqa: S608  as above
        f" WHERE {classid} = '{part}'::regclass AND {part}.oid = {objid}"
        for part, column, whole in _PARTS
    ]
    return "\n    UNION ALL ".join([*queries, _OF_CASTS.format(classid=classid, objid=objid)])


# What others have made of the owner's things. Outside his schemas, this is whatever his roles do not own. Inside his
# schemas, it is only what another application owns: the rest there goes with the schema. Default privileges do not
# count, because they are only a setting.
_DEPENDENTS = """
WITH RECURSIVE {closure}, foreign_thing AS MATERIALIZED (
    SELECT closure.classid, closure.objid, closure.objsubid, owned.owner, record.description AS record,
        max(closure.state) = {holds} AS holds
    FROM closure
    LEFT JOIN LATERAL ({owners}) AS owned (owner, namespace) ON true
    LEFT JOIN pg_shdescription AS record ON record.objoid = owned.owner AND record.classoid = 'pg_authid'::regclass
    WHERE closure.classid <> 'pg_default_acl'::regclass
        -- Of a part its whole decides, which is there, too: a range's functions belong to nobody else.
        -- Counted, not NOT EXISTS: for that the planner sorts all of pg_depend.
        AND (closure.state = {severed} OR (
            SELECT count(*) FROM pg_depend AS part
            WHERE part.classid = closure.classid AND part.objid = closure.objid AND part.deptype = 'i'
        ) = 0)
        AND (closure.classid <> 'pg_cast'::regclass OR owned.owner IS NOT NULL)
        AND (owned.owner <> ALL (%(roles)s) OR owned.owner IS NULL AND NOT EXISTS (
            SELECT FROM pg_shdepend AS own
            WHERE own.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND own.classid = closure.classid AND own.objid = closure.objid
                AND own.refobjid = ANY (%(roles)s) AND own.deptype = 'o'
        ))
        AND (
            owned.namespace IS NULL
            OR owned.namespace <> ALL (%(schemas)s)
            OR (starts_with(record.description, %(prefix)s) AND NOT starts_with(record.description, %(beginning)s))
        )
    GROUP BY closure.classid, closure.objid, closure.objsubid, owned.owner, record.description
)
SELECT named.type AS kind, named.identity, role.rolname AS role, thing.record, thing.holds
FROM foreign_thing AS thing
LEFT JOIN pg_roles AS role ON role.oid = thing.owner
CROSS JOIN LATERAL pg_identify_object(thing.classid, thing.objid, thing.objsubid) AS named
-- The view, and not its rule and its row type as well.
WHERE NOT EXISTS (
    SELECT FROM pg_depend AS part
    JOIN foreign_thing AS whole
        ON whole.classid = part.refclassid AND whole.objid = part.refobjid AND whole.objsubid IN (0, part.refobjsubid)
    WHERE part.classid = thing.classid AND part.objid = thing.objid AND part.objsubid = thing.objsubid
        AND part.deptype IN ('a', 'e', 'P', 'S')
)
ORDER BY holds DESC, role, kind, identity
LIMIT %(most)s
"""


def _judged(seeds: str) -> str:
    is_by_id = sql_by_id.IS_BY_ID.format(
        owner_of_dependent=_owners("dep.classid", "dep.objid"),
        owner_of_thing=_owners("dep.refclassid", "dep.refobjid"),
    )
    return _JUDGED_CLOSURE.format(
        seeds=seeds,
        is_by_id=is_by_id,
        is_severable=sql_by_id.IS_SEVERABLE,
        holds=_HOLDS,
        goes=_GOES,
        severed=_SEVERED,
    )


def _dependents(seeds: str) -> str:
    owners = _owners("closure.classid", "closure.objid")
    return _DEPENDENTS.format(closure=_judged(seeds), owners=owners, holds=_HOLDS, severed=_SEVERED)


DEPENDENTS = _dependents(_SEEDS)
DEPENDENTS_OF_CHOSEN = _dependents(_CHOSEN)
# The statements that drop what depends on the owner's things by object id alone.
PIECES_BY_ID = sql_by_id.PIECES.format(judged=_judged(_SEEDS), holds=_HOLDS)
# The query reads at most this many. The message names fewer.
DEPENDENTS_MOST = 200

_CLOSURE_OF_CANDIDATE = _CLOSURE.format(seeds="SELECT candidate.classid, candidate.objid")

# The query weighs this many candidates for one transaction. A table takes six locks or more.
CANDIDATES_AT_ONCE = 100

# The things that one statement can drop, newest first: a newer thing depends on older ones, and seldom the reverse.
# `locks` counts what would go with the thing, up to `bound`.
CANDIDATES = f"""
WITH owned AS ({_SEEDS}), candidate AS MATERIALIZED (
    SELECT owned.classid, owned.objid FROM owned
    WHERE owned.classid IN (
            'pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass,
            'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_collation'::regclass, 'pg_conversion'::regclass,
            'pg_statistic_ext'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass
        )
        AND owned.objid <> ALL (%(skipped)s::oid[])
        AND (
            SELECT count(*) FROM pg_depend AS part
            WHERE part.classid = owned.classid AND part.objid = owned.objid AND part.deptype IN ('i', 'e', 'P', 'S')
        ) = 0
    ORDER BY owned.objid DESC
    LIMIT %(most)s
)
SELECT
    candidate.classid::bigint AS class_id,
    candidate.objid::bigint AS object_id,
    weighed.locks,
    coalesce(class.relkind IN ('r', 'p') AND class.relowner = ANY (%(roles)s), false) AS is_lockable,
    named.identity,
    coalesce(
        routine.statement,
        format(
            'DROP %%s IF EXISTS %%s',
            CASE named.type
                WHEN 'composite type' THEN 'TYPE' WHEN 'statistics object' THEN 'STATISTICS' ELSE upper(named.type)
            END,
            named.identity
        )
    ) AS statement
FROM candidate
CROSS JOIN LATERAL pg_identify_object(candidate.classid, candidate.objid, 0) AS named
LEFT JOIN pg_class AS class ON candidate.classid = 'pg_class'::regclass AND class.oid = candidate.objid
LEFT JOIN LATERAL (
    -- With the modes of its arguments: without them a procedure's name can mean two.
    SELECT format(
        'DROP %%s IF EXISTS %%I.%%I(%%s)',
        CASE proc.prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
        ns.nspname,
        proc.proname,
        CASE WHEN proc.prokind = 'a' AND args.text = '' THEN '*' ELSE args.text END
    ) AS statement
    FROM pg_proc AS proc
    JOIN pg_namespace AS ns ON ns.oid = proc.pronamespace
    CROSS JOIN LATERAL pg_get_function_identity_arguments(proc.oid) AS args (text)
    WHERE candidate.classid = 'pg_proc'::regclass AND proc.oid = candidate.objid
) AS routine ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS locks FROM (
        WITH RECURSIVE {_CLOSURE_OF_CANDIDATE} SELECT FROM closure LIMIT %(bound)s
    ) AS counted
) AS weighed
WHERE named.identity IS NOT NULL
ORDER BY candidate.objid DESC
"""  # noqa: S608  texts of ours alone
