"""A concept has one name everywhere: that of the glossary; no retired one stands in code, CRDs, chart or docs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("retired_words.txt")
FOLDERS = (
    "activities",
    "bench",
    "cli",
    "clients",
    "deploy",
    "docs",
    "plattr",
    "stack",
    "telemetry",
    "tests",
    "watcher",
    "worker",
    "workflows",
)
SUFFIXES = {".go", ".json", ".md", ".py", ".sh", ".toml", ".tpl", ".txt", ".yaml"}
# A history is what a server recorded; a released CRD is what was released.
RECORDED = ("tests/replay/histories/", "tests/deploy/released/")
BETWEEN_WORDS = r"\s+(?:#\s*)?"
# They name what is retired.
ABOUT_THEM = {LIST, Path(__file__)}


def retired_words() -> list[tuple[str, str]]:
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return [(word.strip(), instead.strip()) for word, _, instead in (line.partition("->") for line in lines)]


def pattern_of(word: str) -> re.Pattern[str]:
    """Return what finds a name as a whole word, or a phrase over the end of a line and its comment mark."""
    parts = [re.escape(part).replace(r"\*", r"\w*") for part in word.split()]
    flags = re.IGNORECASE if word == word.lower() else 0
    return re.compile(rf"(?<!\w){BETWEEN_WORDS.join(parts)}(?!\w)", flags)


def line_of(match: re.Match[str], text: str) -> int:
    return text.count("\n", 0, match.start()) + 1


def texts() -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    paths += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    wanted = [path for path in paths if path.suffix in SUFFIXES or path.name in {"Makefile", "Dockerfile"}]
    names = {path.relative_to(ROOT).as_posix(): path for path in wanted if path not in ABOUT_THEM}
    return {name: path.read_text() for name, path in names.items() if not name.startswith(RECORDED)}


def test_no_retired_word_is_in_use() -> None:
    words = [(word, instead, pattern_of(word)) for word, instead in retired_words()]
    found = []

    for name, text in texts().items():
        lowered = text.lower()
        for word, instead, pattern in words:
            # Searching for a part of it first is ten times as fast.
            if max(re.split(r"[*\s]", word), key=len).lower() not in lowered:
                continue
            found += [
                f"{name}:{line_of(match, text)}: write {instead!r} instead of {word!r}"
                for match in pattern.finditer(text)
            ]

    assert found == []


@pytest.mark.parametrize(
    ("word", "text", "is_found"),
    [
        pytest.param("poke*", "it Pokes the run", True, id="in any case, with an ending"),
        pytest.param("poke*", "it spoke", False, id="inside another word"),
        pytest.param("Envelope", "Envelope(uid)", True, id="a class"),
        pytest.param("Envelope", "an envelope", False, id="its word in lower case"),
        pytest.param("_pass", "self._pass()", True, id="a method"),
        pytest.param("_pass", "first_pass", False, id="the end of another name"),
        pytest.param("called off", "was called\n    # off by it", True, id="a phrase over two lines of a comment"),
    ],
)
def test_a_retired_word_is_found_where_it_is_meant(word: str, text: str, *, is_found: bool) -> None:
    assert bool(pattern_of(word).search(text)) is is_found


def test_every_retired_word_has_one_in_its_place() -> None:
    words = retired_words()

    assert all(word and instead for word, instead in words)
    assert len({word for word, _ in words}) == len(words)


def test_every_name_of_the_glossary_is_one_in_the_code() -> None:
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    names = {name for terms in rows for name in re.findall(r"`(\w+)`", terms)}

    code = "\n".join(text for name, text in texts().items() if name.endswith(".py"))

    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()
