"""The pinned versions of stack/versions.toml."""

import hashlib
import platform
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# Raised when the way a tool is built changes. Old cache entries are then no longer used.
RECIPE = 1


class Pin(BaseModel):
    """One tool's entry. The head of versions.toml explains each field."""

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
        """Insert the version and the platform into a template."""
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
        """Return the accepted prefixes of a found program's version; empty if no found program is ever used."""
        return (self.accepts,) if isinstance(self.accepts, str) else self.accepts or ()

    def checksum(self) -> str:
        """Return the SHA-256 for this platform; empty, which matches no file, if none is pinned."""
        if isinstance(self.sha256, dict):
            return self.sha256.get(self.fill("{os}-{arch}"), "")
        return self.sha256 or ""

    def cache_key(self) -> str:
        """Return a key that changes whenever the binary would: from the entry, the sources and the platform."""
        # Fields that a tool does not use are left out, so that a new field does not rebuild every tool.
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
    """Read every pin, by the tool's name."""
    entries = tomllib.loads((resources.files("stack") / "versions.toml").read_text())
    return {name: Pin(name=name, **entry) for name, entry in entries.items()}
