"""The pinned versions of stack/versions.toml."""

import hashlib
import platform
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# Bumped when the way a tool is built changes: old cache entries are then left alone.
RECIPE = 1


class Pin(BaseModel):
    """One tool's entry; see the head of versions.toml for each field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    accepts: str | tuple[str, ...] | None = None
    also: tuple[str, ...] = ()
    version_arguments: tuple[str, ...] = ("--version",)
    github: str | None = None
    tag: str = "v{version}"
    asset: str | None = None
    url: str | None = None
    member: str | None = None
    wheel: str | None = None
    module: str | None = None
    cgo: bool = False
    source: str | None = None
    maven: str | None = None
    debian: tuple[str, ...] = ()
    sha256: str | dict[str, str] | None = None
    programs: tuple[str, ...] = ()

    def fill(self, template: str) -> str:
        """Fill in a template's version and platform."""
        system = platform.system().lower()
        x86 = platform.machine().lower() in {"x86_64", "amd64"}
        return template.format(
            version=self.version,
            os=system,
            os_title=system.title(),
            arch="amd64" if x86 else "arm64",
            arch_v8="amd64" if x86 else "arm64v8",
            uname="x86_64" if x86 else "arm64",
            os_brand="macOS" if system == "darwin" else system.title(),
            arch_bits="64-bit" if x86 else "arm64",
        )

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return how the version may begin that a program found elsewhere reports; none: it is never taken."""
        return (self.accepts,) if isinstance(self.accepts, str) else self.accepts or ()

    def checksum(self) -> str:
        """Return the SHA-256 pinned for this platform; empty, which no file has, when there is none."""
        if isinstance(self.sha256, dict):
            return self.sha256.get(self.fill("{os}-{arch}"), "")
        return self.sha256 or ""

    def cache_key(self) -> str:
        """Return what changes when the binary would: the entry, the sources, the platform."""
        # A tool is not built again because others have a field that it does without.
        unused = {name for name in ("also", "debian", "cgo") if not getattr(self, name)}
        entry = self.model_dump_json(exclude=unused)
        digest = hashlib.sha256(f"{RECIPE} {self.fill('{os} {arch}')} {entry}".encode())
        if self.source is not None:
            for name in ("go.mod", "go.sum", "main.go"):
                digest.update((source_folder(self.source) / name).read_bytes())
        return digest.hexdigest()[:12]


def source_folder(name: str) -> Path:
    """Return a source folder inside this package."""
    return Path(str(resources.files("stack"))) / name


@cache
def pins() -> dict[str, Pin]:
    """Read every pin, by tool."""
    entries = tomllib.loads((resources.files("stack") / "versions.toml").read_text())
    return {name: Pin(name=name, **entry) for name, entry in entries.items()}
