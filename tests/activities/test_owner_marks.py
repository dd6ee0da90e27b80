"""What a tenant writes where an owner's mark would be is not quoted: it would reach conditions, Events and the UI."""

import json
from typing import Any

import pytest
from psycopg.sql import SQL, Identifier, Literal

from activities.database import DatabaseActivities
from activities.ownership import ensure_adoptable
from activities.storage import StorageActivities
from cli.auditing.inventory import Found, Thing, ThingKind
from clients.resources import CONFIG_MAPS
from plattr.buckets import OWNER_TAG
from plattr.database import RECORD_PREFIX
from plattr.errors import OwnedElsewhere
from plattr.objects import UNREADABLE_OWNER
from plattr.target import OWNER_ANNOTATION
from tests.fix_kubernetes import Cluster, config_map
from tests.fix_postgres import Superuser, Tenants
from tests.fix_s3 import UPLOADS, Shops
from tests.s3_view import write_tags

pytestmark = pytest.mark.attack

LURE = "team/Application/shop\n\n[sign in again](https://evil.example.test)\x1b[2J"


async def test_an_annotation_is_not_quoted(cluster: Cluster, namespace: str) -> None:
    custom_object = await cluster.apply(namespace, "shop")
    body = config_map("shop-storage", annotations={OWNER_ANNOTATION: LURE})
    found = await cluster.admin.create(CONFIG_MAPS, body, namespace)

    with pytest.raises(OwnedElsewhere) as refusal:
        ensure_adoptable(CONFIG_MAPS, found, custom_object.owner)
    with pytest.raises(OwnedElsewhere) as refused_write:
        await cluster.kube.apply_owned(CONFIG_MAPS, body, custom_object.owner, namespace)

    for error in (refusal, refused_write):
        assert UNREADABLE_OWNER in str(error.value)
        assert "evil" not in str(error.value)


async def test_a_comment_is_not_quoted(databases: DatabaseActivities, tenants: Tenants, superuser: Superuser) -> None:
    tenant = await tenants.apply()
    comment = RECORD_PREFIX + json.dumps({"owner": LURE})
    role = Identifier(tenant.names.app_role)
    await superuser.execute(SQL("CREATE ROLE {}; COMMENT ON ROLE {} IS {}").format(role, role, Literal(comment)))

    with pytest.raises(OwnedElsewhere) as refusal:
        await databases.reconcile_database(tenant.step)

    assert UNREADABLE_OWNER in str(refusal.value)
    assert "evil" not in str(refusal.value)


async def test_a_tag_is_not_quoted(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    shop = await shops.apply("", UPLOADS)
    own_account.create_bucket(Bucket=shop.bucket("uploads"))
    write_tags(own_account, shop.bucket("uploads"), {OWNER_TAG: "see https://evil.example.test"})

    with pytest.raises(OwnedElsewhere) as refusal:
        await storage.reconcile_storage(shop.step)

    assert UNREADABLE_OWNER in str(refusal.value)
    assert "evil" not in str(refusal.value)


def test_what_the_audit_prints_commands_no_terminal() -> None:
    thing = Thing(kind=ThingKind.ROLE, name="prod_shop_app")

    found = Found(thing=thing, owner=LURE, uid="\x1b[2J")

    assert (found.owner, found.uid) == (UNREADABLE_OWNER, "unreadable")
