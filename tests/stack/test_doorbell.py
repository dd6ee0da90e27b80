"""Redis on the local platform: nobody starts it, the first connection does."""

import socket
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from stack.platform import Platform


def state_of(platform: Platform) -> str:
    [status] = [status for status in platform.status() if status.service == "redis"]
    return status.state


def test_redis_starts_when_somebody_connects_and_keeps_what_it_has(state: Path) -> None:
    platform = Platform(state)
    try:
        # One service is enough for a supervisor.
        platform.start(services=["s3"])
        before = state_of(platform)
        url = platform.endpoints.redis_admin_url
        with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.2), 100)) as client:
            client.set("kept", "x")
            client.execute_command("ACL", "SETUSER", "kept", "on")
            client.execute_command("ACL", "SAVE")
        during = state_of(platform)
        platform.stop_service("redis")
        with socket.socket() as caller:
            held_down = caller.connect_ex(("127.0.0.1", platform.endpoints.redis_port))
        platform.start_service("redis")

        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"x"
            assert "kept" in client.acl_users()
        assert (before, during) == ("on demand", "running")
        assert held_down != 0
    finally:
        platform.stop()
