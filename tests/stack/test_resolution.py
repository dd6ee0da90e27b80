import hashlib
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from stack.errors import ChecksumMismatch, PlatformError
from stack.tools import resolve
from stack.tools.pins import Pin, pins
from stack.tools.resolve import Resolver, link_tools, reports_version


def script(path: Path, output: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def cached(cache: Path, name: str) -> Path:
    pin = pins()[name]
    return script(cache / f"{name}-{pin.version}-{pin.cache_key()}" / name, f"version {pin.version}")


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    monkeypatch.setenv("PLATTR_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for name in pins():
        monkeypatch.delenv(resolve.setting(name), raising=False)
    for name in ("PLATTR_BIN_KUBE", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Resolver(exclude=tmp_path / "links", tell=lambda _line: None, cache=tmp_path / "cache")


def test_setting_wins_over_path(resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "path" / "etcd", "etcd Version: 3.7.0")
    named = script(tmp_path / "my-etcd", "etcd Version: 2.0.0")
    monkeypatch.setenv("PLATTR_BIN_ETCD", str(named))

    found = resolver.resolve("etcd")

    assert found == named


def test_setting_that_names_no_file_is_refused(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATTR_BIN_ETCD", "/nowhere/etcd")

    with pytest.raises(PlatformError, match="PLATTR_BIN_ETCD=/nowhere/etcd"):
        resolver.resolve("etcd")


def test_one_kubernetes_binary_serves_every_name_of_it(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube = script(tmp_path / "kube", "any")
    monkeypatch.setenv("PLATTR_BIN_KUBE", str(kube))

    found = {name: resolver.resolve(name) for name in ("etcd", "kwok", "kubectl", "kube-apiserver")}

    assert set(found.values()) == {kube}


@pytest.mark.parametrize(
    ("reported", "used"),
    [
        pytest.param("etcd Version: 3.7.9", True, id="same minor version"),
        pytest.param("etcd Version: 3.6.1", False, id="another minor version"),
        pytest.param("Version: git", False, id="version unknown"),
    ],
)
def test_binary_on_path_is_used_if_its_version_is_accepted(
    resolver: Resolver, tmp_path: Path, reported: str, *, used: bool
) -> None:
    on_path = script(tmp_path / "path" / "etcd", reported)
    in_cache = cached(tmp_path / "cache", "etcd")

    found = resolver.resolve("etcd")

    assert found == (on_path if used else in_cache)


def test_own_links_on_path_are_no_second_opinion(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "links" / "etcd", "etcd Version: 3.7.0")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    in_cache = cached(tmp_path / "cache", "etcd")

    found = resolver.resolve("etcd")

    assert found == in_cache


def test_pinned_wheel_serves_without_internet_or_cache(resolver: Resolver, tmp_path: Path) -> None:
    found = [resolver.resolve(name) for name in ("temporal", "postgres")]

    assert [path.name for path in found] == ["temporal", "postgres"]
    assert all(reports_version(path, pins()[path.name]) for path in found)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("tool", "program", "remedy"),
    [
        pytest.param("versitygw", "go", "https://go.dev/dl", id="go module"),
        pytest.param("kwok", "go", "PLATTR_BIN_KUBE", id="part of kubernetes"),
        pytest.param("keycloak", "java", "Java 17", id="java"),
    ],
)
def test_missing_builder_is_named_with_its_remedy(resolver: Resolver, tool: str, program: str, remedy: str) -> None:
    with pytest.raises(PlatformError) as failure:
        resolver.resolve(tool)

    assert f"{program} is not installed" in str(failure.value)
    assert remedy in str(failure.value)
    assert "\n" not in str(failure.value)


def test_missing_compiler_is_named_with_its_remedy(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    script(tmp_path / "path" / "go", "go version")

    with pytest.raises(PlatformError, match="gcc is not installed; install a C compiler"):
        resolver.resolve("vale")


def test_missing_maven_is_named_with_its_remedy(resolver: Resolver, tmp_path: Path) -> None:
    script(tmp_path / "path" / "java", "openjdk 17")

    with pytest.raises(PlatformError, match="mvn is not installed; install Maven"):
        resolver.resolve("keycloak")


def test_missing_maven_is_named_with_the_setting_that_serves_instead(resolver: Resolver) -> None:
    with pytest.raises(PlatformError, match="mvn is not installed; install Maven 3, or set PLATTR_BIN_POSTGRES_15"):
        resolver.resolve("postgres-15")


def jar_of_a_server(folder: Path) -> Path:
    """Pack a server that tells its version, as its publisher does."""
    script(folder / "bin" / "postgres", "postgres (PostgreSQL) 15.0")
    with tarfile.open(folder / "any.txz", "w:xz") as tar:
        tar.add(folder / "bin", "bin")
    jar = folder / "server.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        packed.write(folder / "any.txz", "postgres-any.txz")
    return jar


@pytest.mark.parametrize("is_genuine", [True, False], ids=["genuine", "changed on the way"])
def test_server_that_maven_fetched_is_used_if_it_is_the_pinned_one(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_genuine: bool
) -> None:
    jar = jar_of_a_server(tmp_path / "server")
    mvn = script(tmp_path / "path" / "mvn", "")
    mvn.write_text(f'#!/bin/sh\nfor last; do :; done\n/bin/cp {jar} "${{last#*=}}/server-15.0.jar"\n')
    checksum = hashlib.sha256(jar.read_bytes() if is_genuine else b"another").hexdigest()
    pin = Pin(name="postgres-15", version="15.0", maven="group:server:{version}:jar")
    pinned = pin.model_copy(update={"sha256": {pin.fill("{os}-{arch}"): checksum}})
    monkeypatch.setitem(pins(), "postgres-15", pinned)

    if is_genuine:
        server = resolver.resolve("postgres-15").resolve()
        assert reports_version(server, pin.model_copy(update={"accepts": "15."}))
        assert server.parent.name == "bin"
    else:
        with pytest.raises(ChecksumMismatch):
            resolver.resolve("postgres-15")


def test_failed_build_leaves_nothing_in_the_cache(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "path" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    go.chmod(0o755)

    with pytest.raises(PlatformError, match="no such module"):
        resolver.resolve("versitygw")

    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["versitygw.lock"]


def test_cache_key_changes_with_the_pin() -> None:
    pin = pins()["versitygw"]

    newer = pin.model_copy(update={"version": "1.9.0"})

    assert newer.cache_key() != pin.cache_key()


def test_links_go_by_the_name_the_binary_is_called_by(tmp_path: Path) -> None:
    kube = script(tmp_path / "kube", "any")
    (tmp_path / "bin").mkdir()

    run = link_tools({"etcd": kube, "kubectl": kube}, tmp_path / "bin")
    link_tools({"etcd": kube}, tmp_path / "bin")

    # Our own build holds helm as well.
    assert {name: path.name for name, path in run.items()} == {"etcd": "etcd", "kubectl": "kubectl", "helm": "helm"}
    assert {path.readlink() for path in run.values()} == {kube}


def test_unknown_field_of_a_pin_is_refused() -> None:
    with pytest.raises(ValueError, match="sha265"):
        Pin.model_validate({"name": "x", "version": "1", "sha265": "typo"})
