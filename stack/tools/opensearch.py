"""OpenSearch, assembled from its own artifacts: the server, HTTP and the analyzers, 45 MB, without plugins."""

import hashlib
import shutil
from pathlib import Path

from stack.errors import ChecksumMismatch
from stack.tools.build import run_build
from stack.tools.pins import Pin

_ARTIFACTS = (
    "org.opensearch:opensearch:{version}",
    "org.opensearch:opensearch-plugin-classloader:{version}",
    "org.opensearch.plugin:transport-netty4-client:{version}",
    "org.opensearch.plugin:analysis-common:{version}",
    "org.apache.logging.log4j:log4j-core:2.25.4",
)
# Jars that were needed only to compile the artifacts.
_LEFT_OUT = ("error_prone_annotations", "jspecify", "jakarta.annotation-api")
# By module: its class, and the prefixes of its jars' names. All other jars belong to the server.
_MODULES = {
    "transport-netty4": ("org.opensearch.transport.Netty4Plugin", ("netty-", "transport-netty4-client")),
    "analysis-common": ("org.opensearch.analysis.common.CommonAnalysisPlugin", ("analysis-common",)),
}
_NETTY_POLICY = """grant codeBase "${codebase.netty-common}" {
  permission java.lang.RuntimePermission "setContextClassLoader";
  permission java.lang.RuntimePermission "getClassLoader";
  permission java.lang.RuntimePermission "accessClassInPackage.sun.misc";
  permission java.lang.reflect.ReflectPermission "suppressAccessChecks";
  permission java.util.PropertyPermission "*", "read,write";
  permission java.net.SocketPermission "*", "accept,connect";
};
grant codeBase "${codebase.netty-transport}" {
  permission java.io.FilePermission "/proc/sys/net/core/somaxconn", "read";
  permission java.net.SocketPermission "*", "accept,connect";
};
"""


def assemble_opensearch(pin: Pin, home: Path) -> None:
    """Fetch the jars with mvn, verify all of them together, and arrange them as a home.

    Raises:
        ChecksumMismatch: the list of jars, or one of them, differs from what was pinned.
    """
    project = home.parent / "project"
    project.mkdir()
    (project / "pom.xml").write_text(_project(pin))
    run_build(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"], folder=project)
    jars = sorted(path for path in (project / "jars").glob("*.jar") if not path.name.startswith(_LEFT_OUT))
    digest = _digest_of(jars)
    if digest != pin.checksum():
        raise ChecksumMismatch(
            f"cannot use the jars of opensearch {pin.version}: their SHA-256 is {digest}, expected {pin.checksum()};"
            " somebody changed one on the way or at its source: do not use them, report it"
        )
    # OpenSearch reads all of these folders, even the empty ones.
    for folder in ("bin", "lib", "plugins", *(f"modules/{module}" for module in _MODULES)):
        (home / folder).mkdir(parents=True)
    for jar in jars:
        shutil.move(jar, home / _place_of(jar.name) / jar.name)
    for module, (class_name, _) in _MODULES.items():
        (home / "modules" / module / "plugin-descriptor.properties").write_text(_descriptor(pin, module, class_name))
    (home / "modules" / "transport-netty4" / "plugin-security.policy").write_text(_NETTY_POLICY)
    shutil.rmtree(project)


def _project(pin: Pin) -> str:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *pin.fill(artifact).split(":")
        )
        for artifact in _ARTIFACTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>plattr</groupId><artifactId>opensearch</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )


def _digest_of(jars: list[Path]) -> str:
    digest = hashlib.sha256()
    for jar in jars:
        with jar.open("rb") as file:
            digest.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {jar.name}\n".encode())
    return digest.hexdigest()


def _place_of(jar: str) -> str:
    for module, (_, beginnings) in _MODULES.items():
        if jar.startswith(beginnings):
            return f"modules/{module}"
    return "lib"


def _descriptor(pin: Pin, module: str, class_name: str) -> str:
    values = {
        "name": module,
        "description": module,
        "version": pin.version,
        "opensearch.version": pin.version,
        "java.version": "11",
        "classname": class_name,
        "extended.plugins": "",
        "has.native.controller": "false",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
