"""The SQL texts about dependencies by object id alone, which need no right on the thing.

`'16384'::regclass` names a table by its object id. PostgreSQL checks no right on the schema or the table, but records a
dependency. This dependency does not hold the deletion of the table. A role that writes the table's name itself has its
access from the owner, so its dependency holds the deletion.
"""

# The types whose constants make a dependency: find_expr_references_walker in PostgreSQL's dependency.c. They are
# regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary, regnamespace, regcollation.
_TYPES = "24|2202|2203|2204|2205|2206|3734|3769|4089|4191"

# Every expression of the dependent thing, as PostgreSQL keeps it.
_EXPRESSIONS = """
    SELECT concat(adbin) FROM pg_attrdef WHERE dep.classid = 'pg_attrdef'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(ev_qual, ev_action) FROM pg_rewrite
        WHERE dep.classid = 'pg_rewrite'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(conbin) FROM pg_constraint WHERE dep.classid = 'pg_constraint'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(indexprs, indpred) FROM pg_index
        WHERE dep.classid = 'pg_class'::regclass AND indexrelid = dep.objid
    UNION ALL SELECT concat(partexprs) FROM pg_partitioned_table
        WHERE dep.classid = 'pg_class'::regclass AND partrelid = dep.objid
    UNION ALL SELECT concat(prosqlbody, proargdefaults) FROM pg_proc
        WHERE dep.classid = 'pg_proc'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(typdefaultbin) FROM pg_type WHERE dep.classid = 'pg_type'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(polqual, polwithcheck) FROM pg_policy
        WHERE dep.classid = 'pg_policy'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(tgqual) FROM pg_trigger WHERE dep.classid = 'pg_trigger'::regclass AND oid = dep.objid
    UNION ALL SELECT concat(stxexprs) FROM pg_statistic_ext
        WHERE dep.classid = 'pg_statistic_ext'::regclass AND oid = dep.objid
"""
# The four bytes of the object id, as PostgreSQL prints the bytes of a constant. Some compilers give them a sign. The
# lowest byte comes first on every platform that Plattr runs on. On another platform the pattern finds nothing, and the
# dependency holds.
_BYTE = "(SELECT format('(%%s|%%s)', byte, byte - 256) FROM (VALUES ({byte})) AS one (byte))"
_BYTES = ", ".join(_BYTE.format(byte=f"dep.refobjid::bigint >> {shift} & 255") for shift in (0, 8, 16, 24))

# Whether `dep` is a dependency by object id alone, of an application that has no right on the thing now. The two
# `owner_of_...` texts are queries for the owner of the dependent thing and for the owner of the thing.
IS_BY_ID = f"""
dep.deptype = 'n' AND dep.refobjsubid = 0
AND dep.refclassid IN (
    'pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_collation'::regclass,
    'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_namespace'::regclass
)
AND EXISTS (
    SELECT FROM ({{owner_of_dependent}}) AS dependent (owner, namespace)
    CROSS JOIN ({{owner_of_thing}}) AS thing (owner, namespace)
    WHERE dependent.owner <> ALL (%(roles)s)
        AND (dependent.namespace IS NULL OR dependent.namespace <> ALL (%(schemas)s))
        -- What is not ours to drop holds, and a person asks its owner.
        AND pg_has_role(dependent.owner, 'USAGE')
        AND NOT pg_has_role(dependent.owner, thing.owner, 'USAGE')
        AND NOT (
            has_schema_privilege(dependent.owner, thing.namespace, 'USAGE')
            AND CASE dep.refclassid
                WHEN 'pg_class'::regclass THEN (
                    SELECT CASE
                        WHEN relkind = 'S' THEN has_sequence_privilege(dependent.owner, oid, 'USAGE, SELECT, UPDATE')
                        -- An index or a composite type has no rights of its own.
                        WHEN relkind IN ('i', 'I', 'c') THEN true
                        ELSE has_table_privilege(
                                dependent.owner, oid,
                                'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'
                            )
                            OR has_any_column_privilege(dependent.owner, oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                    END
                    FROM pg_class WHERE oid = dep.refobjid
                )
                WHEN 'pg_proc'::regclass THEN has_function_privilege(dependent.owner, dep.refobjid, 'EXECUTE')
                WHEN 'pg_type'::regclass THEN has_type_privilege(dependent.owner, dep.refobjid, 'USAGE')
                ELSE true
            END
        )
)
AND EXISTS (
    SELECT FROM ({_EXPRESSIONS}) AS expression (tree)
    WHERE expression.tree ~ format(
        'CONST :consttype ({_TYPES}) [^}}}}]*:constvalue 4 \\[ %%s %%s %%s %%s 0 0 0 0 \\]', {_BYTES}
    )
)
"""  # noqa: S608  texts of ours alone
# Whether the dependency can end while the dependent thing stays, without its default, expression or check. Things that
# depend on the dependent thing stay as well.
IS_SEVERABLE = """
dep.classid = 'pg_constraint'::regclass
OR dep.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type WHERE oid = dep.objid AND typtype = 'd')
OR dep.classid = 'pg_attrdef'::regclass AND EXISTS (
    SELECT FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    WHERE pg_attrdef.oid = dep.objid AND attgenerated <> 'v'
)
"""

# The statements that end these dependencies, piece by piece, newest first. A thing without a statement here goes by the
# CASCADE of a thing that it depends on. `doors` are the schemas, with their owners, that the statement needs opened to
# us. {judged} defines `closure`.
PIECES = """
WITH RECURSIVE {judged}, stranger AS MATERIALIZED (
    SELECT classid, objid, objsubid, max(state) AS state FROM closure GROUP BY classid, objid, objsubid
    HAVING max(state) < {holds}
), piece AS (
    SELECT stranger.*, format(
            'ALTER TABLE IF EXISTS %%s ALTER COLUMN %%I DROP %%s', attrelid::regclass, attname,
            CASE attgenerated WHEN '' THEN 'DEFAULT' ELSE 'EXPRESSION IF EXISTS' END
        ) AS statement, attrelid AS relation, ARRAY[relnamespace] AS schemas
    FROM stranger JOIN pg_attrdef AS def ON stranger.classid = 'pg_attrdef'::regclass AND def.oid = stranger.objid
    JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum JOIN pg_class AS class ON class.oid = attrelid
    WHERE (attgenerated = '' OR attgenerated = 's' AND attinhcount = 0) AND NOT EXISTS (
        SELECT FROM stranger AS whole
        WHERE whole.classid = 'pg_class'::regclass AND whole.objid = attrelid AND whole.objsubid IN (0, attnum)
    )
    UNION ALL
    SELECT stranger.*,
        format('ALTER TABLE IF EXISTS %%s DROP COLUMN IF EXISTS %%I CASCADE', attrelid::regclass, attname),
        attrelid, ARRAY[relnamespace]
    FROM stranger JOIN pg_attribute ON stranger.classid = 'pg_class'::regclass AND attrelid = stranger.objid
        AND attnum = stranger.objsubid
    JOIN pg_class AS class ON class.oid = attrelid
    WHERE stranger.objsubid > 0 AND relkind IN ('r', 'p', 'f') AND attinhcount = 0
    UNION ALL
    SELECT stranger.*, CASE WHEN contypid = 0
            THEN format('ALTER TABLE IF EXISTS %%s DROP CONSTRAINT IF EXISTS %%I CASCADE', conrelid::regclass, conname)
            ELSE format('ALTER DOMAIN %%s DROP CONSTRAINT IF EXISTS %%I', contypid::regtype, conname)
        END, conrelid, ARRAY[connamespace]
    FROM stranger JOIN pg_constraint AS con ON stranger.classid = 'pg_constraint'::regclass AND con.oid = stranger.objid
    WHERE coninhcount = 0 AND contype <> 'n' AND (contypid = 0 OR stranger.state = 0)
    UNION ALL
    SELECT stranger.*, format('DROP TRIGGER IF EXISTS %%I ON %%s', tgname, tgrelid::regclass), tgrelid,
        ARRAY[relnamespace]
    FROM stranger JOIN pg_trigger AS trigger ON stranger.classid = 'pg_trigger'::regclass
        AND trigger.oid = stranger.objid
    JOIN pg_class AS class ON class.oid = tgrelid
    WHERE NOT tgisinternal AND tgparentid = 0
    UNION ALL
    SELECT stranger.*, format('DROP POLICY IF EXISTS %%I ON %%s', polname, polrelid::regclass), polrelid,
        ARRAY[relnamespace]
    FROM stranger JOIN pg_policy AS policy ON stranger.classid = 'pg_policy'::regclass AND policy.oid = stranger.objid
    JOIN pg_class AS class ON class.oid = polrelid
    UNION ALL
    SELECT stranger.*, format('DROP RULE IF EXISTS %%I ON %%s', rulename, ev_class::regclass), ev_class,
        ARRAY[relnamespace]
    FROM stranger JOIN pg_rewrite AS rule ON stranger.classid = 'pg_rewrite'::regclass AND rule.oid = stranger.objid
    JOIN pg_class AS class ON class.oid = ev_class
    WHERE ev_type <> '1'
    UNION ALL
    SELECT stranger.*, format('ALTER DOMAIN %%s DROP DEFAULT', type.oid::regtype), 0, ARRAY[typnamespace]
    FROM stranger JOIN pg_type AS type ON stranger.classid = 'pg_type'::regclass AND type.oid = stranger.objid
    WHERE stranger.state = 0
    UNION ALL
    SELECT stranger.*, format(
            'DROP %%s IF EXISTS %%I.%%I(%%s) CASCADE',
            CASE prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, nspname, proname,
            CASE WHEN prokind = 'a' AND args.text = '' THEN '*' ELSE args.text END
        ), 0, types.schemas || pronamespace
    FROM stranger JOIN pg_proc AS proc ON stranger.classid = 'pg_proc'::regclass AND proc.oid = stranger.objid
    JOIN pg_namespace AS ns ON ns.oid = pronamespace
    CROSS JOIN LATERAL pg_get_function_identity_arguments(proc.oid) AS args (text)
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(DISTINCT typnamespace), '{{}}') AS schemas FROM pg_type
        WHERE pg_type.oid = ANY (coalesce(proallargtypes, proargtypes::oid[]))
    ) AS types
    UNION ALL
    SELECT stranger.*, format(
            'DROP %%s IF EXISTS %%s CASCADE',
            CASE named.type
                WHEN 'composite type' THEN 'TYPE' WHEN 'statistics object' THEN 'STATISTICS' ELSE upper(named.type)
            END, named.identity
        ), 0, ARRAY(SELECT oid FROM pg_namespace WHERE nspname = named.schema)
    FROM stranger CROSS JOIN LATERAL pg_identify_object(classid, objid, objsubid) AS named
    WHERE stranger.objsubid = 0 AND stranger.state > 0 AND stranger.classid IN (
        'pg_class'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass,
        'pg_opfamily'::regclass, 'pg_collation'::regclass, 'pg_conversion'::regclass, 'pg_statistic_ext'::regclass,
        'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_cast'::regclass
    )
), batch AS MATERIALIZED (
    SELECT piece.* FROM piece
    WHERE objid <> ALL (%(skipped)s::oid[]) AND (piece.state = 0 OR (
        SELECT count(*) FROM pg_depend AS part
        WHERE part.classid = piece.classid AND part.objid = piece.objid AND part.objsubid = piece.objsubid
            AND part.deptype IN ('i', 'e', 'P', 'S')
    ) = 0)
    ORDER BY objid DESC
    LIMIT %(most)s
)
SELECT batch.objid::bigint AS object_id, batch.statement, current_user::text AS admin,
    -- With the table that is altered, and those that inherit from it.
    3 + weighed.locks + family.locks AS locks,
    closed.doors
FROM batch
CROSS JOIN LATERAL (
    SELECT count(*) AS locks FROM (
        WITH RECURSIVE taken (classid, objid, objsubid) AS (
            SELECT batch.classid, batch.objid, batch.objsubid
            UNION
            SELECT next.classid, next.objid, next.objsubid FROM taken AS base
            CROSS JOIN LATERAL (
                SELECT classid, objid, objsubid FROM pg_depend
                WHERE refclassid = base.classid AND refobjid = base.objid
                    AND (base.objsubid = 0 OR refobjsubid = base.objsubid)
                UNION ALL
                SELECT refclassid, refobjid, refobjsubid FROM pg_depend
                WHERE classid = base.classid AND objid = base.objid AND deptype IN ('i', 'e')
            ) AS next
            WHERE batch.state > 0
        )
        SELECT FROM taken LIMIT %(bound)s
    ) AS counted
) AS weighed
CROSS JOIN LATERAL (
    SELECT count(*) * 2 AS locks FROM (
        WITH RECURSIVE family (relation) AS (
            SELECT inhrelid FROM pg_inherits WHERE inhparent = batch.relation
            UNION
            SELECT inhrelid FROM family JOIN pg_inherits ON inhparent = family.relation
        )
        SELECT FROM family LIMIT %(bound)s
    ) AS counted
) AS family
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(ARRAY[host.rolname, ns.nspname]::text[]), '{{}}') AS doors
    FROM pg_namespace AS ns JOIN pg_roles AS host ON host.oid = ns.nspowner
    WHERE ns.oid = ANY (batch.schemas) AND NOT has_schema_privilege(ns.oid, 'USAGE')
        AND pg_has_role(host.oid, %(set_privilege)s)
) AS closed
ORDER BY batch.objid DESC
"""
