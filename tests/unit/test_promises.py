"""The promises in the documents: every test that a document names is there, or the promise is not."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")]
    if not {".venv", "build", "dist"} & set(path.relative_to(ROOT).parts)
)
FOLDERS = (
    "unit",
    "behaviour",
    "conformance",
    "simulation",
    "integration",
    "faults",
    "security",
    "fabric",
    "benchmarks",
)
_FILE = re.compile(rf"(?<![\w/…])(?:tests/)?((?:{'|'.join(FOLDERS)})/[\w/]+\.(?:py|md)|(?<=`)test_\w+\.py)")
_FUNCTION = re.compile(r"(?<![\w/])(test_\w+)(\*?)(?!\w|\.py|\.md|/)")


def named_files(text: str) -> set[str]:
    return set(_FILE.findall(text))


def named_tests(text: str) -> set[tuple[str, bool]]:
    """Give the tests that a text names; True: any that begins so."""
    return {(name, bool(star)) for name, star in _FUNCTION.findall(text)}


@pytest.fixture(scope="module")
def tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_a_document_names_is_there(document: Path, tests: set[str]) -> None:
    text = document.read_text(encoding="utf-8")

    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        name
        for name in named_files(text)
        if not ((ROOT / "tests" / name).exists() or ("/" not in name and name in names))
    ]
    missing += [
        name
        for name, is_prefix in named_tests(text)
        if not (any(test.startswith(name) for test in tests) if is_prefix else name in tests)
    ]

    assert not missing


def test_names_are_found_in_every_form_that_documents_use() -> None:
    text = (
        "`tests/unit/test_a.py`, `faults/test_b.py`: `test_c_*` and …::test_d, see `test_e.py` in unit/mapping/x_y.md"
    )

    assert named_files(text) == {"unit/test_a.py", "faults/test_b.py", "test_e.py", "unit/mapping/x_y.md"}
    assert named_tests(text) == {("test_c_", True), ("test_d", False)}
