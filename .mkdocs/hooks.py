"""What the site has beyond the pages of docs/: addresses, the changelog, every decision, a reference of `plattr/`."""

import logging
import re
import tomllib
from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|link rel=.(?:stylesheet|preconnect).)[^>]+(?:src|href)=.https?:[^\s>]+"
)


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:  # noqa: ARG001, FBT001
    """Say nothing of a build that has no warning. Unlike `--quiet`, this lets `strict` count the warnings."""
    if command == "build":
        logging.getLogger("mkdocs").setLevel(logging.WARNING)


def on_config(config: MkDocsConfig) -> None:
    """Fill in the addresses, and the parts of the navigation that follow from the files."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    config.site_url, config.repo_url, config.repo_name = urls["Documentation"], urls["Repository"], "Repository"
    decisions = sorted((Path(config.docs_dir) / "decisions").glob("[0-9]*.md"))
    sections = list(config.nav or [])
    for section in sections:
        if "Decisions" in section:
            section["Decisions"] += [f"decisions/{page.name}" for page in decisions]
    sections.append({"Reference": [{module: page_of(module)} for module in modules()]})
    sections.append({"Changelog": "changelog.md"})
    config.nav = sections


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that no file of docs/ is."""
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text()))
    for module in modules():
        files.append(File.generated(config, page_of(module), content=f"::: {module}\n"))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:  # noqa: ARG001
    """Warn of what a reader's browser would load from another host."""
    for asset in FROM_ELSEWHERE.findall(output):
        logging.getLogger("mkdocs.hooks").warning("%s loads from elsewhere: %s", page.file.src_uri, asset)


def modules() -> list[str]:
    """Return every module of the domain; a package holds nothing but its docstring."""
    paths = sorted(path.relative_to(ROOT) for path in (ROOT / "plattr").rglob("*.py") if path.name != "__init__.py")
    return [".".join(path.with_suffix("").parts) for path in paths]


def page_of(module: str) -> str:
    """Return the page of one module."""
    return f"reference/{module}.md"
