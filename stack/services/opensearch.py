"""OpenSearch with one node. The first connection starts it."""

import os
import pwd
import shutil
from pathlib import Path

import httpx

from stack.processes import Command, unprivileged_user
from stack.services.base import Service, Site, answers

# With one node a shard cannot have a copy, and its index would stay yellow.
_TEMPLATE = {"index_patterns": ["*"], "priority": 0, "template": {"settings": {"number_of_replicas": 0}}}
_LOGGING = """appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class OpenSearch(Service):
    """One node on the loopback, without the security plugin. It refuses root, so for root it runs as another user."""

    name = "opensearch"
    ports = ("opensearch", "opensearch-transport")
    is_on_demand = True
    # 7 s on an idle machine.
    healthy_within_seconds = 120

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.user = unprivileged_user()

    def prepare(self) -> None:
        """Write the configuration. The data stays."""
        super().prepare()
        configuration = self.folder / "config"
        for folder in (configuration, *(self.folder / part for part in ("data", "logs", "tmp"))):
            folder.mkdir(exist_ok=True, mode=0o700)
        settings = {
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": str(self.site.port("opensearch")),
            "transport.port": str(self.site.port("opensearch-transport")),
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder / "logs"),
        }
        (configuration / "opensearch.yml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
        (configuration / "log4j2.properties").write_text(_LOGGING)
        (configuration / "jvm.options").write_text("")
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, entry.pw_uid, entry.pw_gid)

    def command(self) -> Command:
        """Start the server from the home that was assembled in the cache."""
        home = Path(self.site.tool("opensearch")).resolve()
        return Command(
            arguments=(
                *(java(), "-Xms192m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                *("-Djava.security.manager=allow", f"-Dopensearch.path.home={home}"),
                *(f"-Dopensearch.path.conf={self.folder / 'config'}", "-Dopensearch.networkaddress.cache.ttl=60"),
                *("-Dlog4j2.disable.jmx=true", "-Dlog4j.shutdownHookEnabled=false", "-Dio.netty.noUnsafe=true"),
                *("-Djna.nosys=true", f"-Djava.io.tmpdir={self.folder / 'tmp'}"),
                *("-cp", f"{home}/lib/*", "org.opensearch.bootstrap.OpenSearch"),
            ),
            folder=self.folder,
            user=self.user,
        )

    def is_healthy(self) -> bool:
        """Tell whether its front page answers."""
        return answers(f"{self.site.url('opensearch')}/")

    def set_up(self) -> None:
        """Create a template that gives indices no replicas."""
        url = f"{self.site.url('opensearch')}/_index_template/local"
        httpx.put(url, json=_TEMPLATE, timeout=30, trust_env=False).raise_for_status()


def java() -> str:
    """Return the Java to run, from JAVA_HOME or else from PATH."""
    own = Path(os.environ.get("JAVA_HOME", "/nowhere")) / "bin" / "java"
    return str(own) if own.exists() else shutil.which("java") or "java"
