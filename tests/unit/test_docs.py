"""What the documents say that can be checked without reading them: names, reasons, keys, links."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from coordd.access import denials
from coordd.config import Settings, section_model
from coordd.core import errors
from coordd.rpc.admission_refusals import refusals
from coordd.rpc.errors import of_command, of_defect, of_denial, of_message, of_unreadable

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for folder in (".", "docs", "docs/adr", "bench", "examples", "clients/python")
    for path in sorted((ROOT / folder).glob("*.md"))
]
SEMANTICS = (ROOT / "docs" / "semantics.md").read_text("utf-8")
_RULE = re.compile(r"^(?=\d+\. )", re.MULTILINE)


def sources(folder: str) -> Iterator[str]:
    return (path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py")))


def rules() -> Iterator[tuple[str, str]]:
    """Yield each rule of semantics.md by its number, as `5.3`, with its text."""
    for section in re.split(r"^## ", SEMANTICS, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        for rule in _RULE.split(body)[1:]:
            number, _, text = rule.partition(". ")
            yield f"{title.partition('.')[0]}.{number}", text


def test_every_test_that_a_page_names_is_there() -> None:
    there = {name for text in sources("tests") for name in re.findall(r"(?:def|class) (\w+)", text)}
    there |= {path.stem for path in (ROOT / "tests").rglob("*.py")}
    missing = {
        f"{page.name}: {name}"
        for page in PAGES
        for name in re.findall(r"\btest_\w+", page.read_text("utf-8"))
        if name not in there
    }
    assert missing == set()


def test_every_rule_names_its_test() -> None:
    named = re.compile(r"`(?:test_\w+|tests/[\w/.]+|Test\w+)`")
    assert [number for number, text in rules() if not named.search(text)] == []


def test_sections_and_rules_are_numbered_in_order_and_references_lead_somewhere() -> None:
    sections = [int(number) for number in re.findall(r"^## (\d+)\. ", SEMANTICS, re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    numbers = [tuple(map(int, number.split("."))) for number, _ in rules()]
    in_order = [
        (section, rule + 1) for section in sections for rule in range(sum(n == section for n, _ in numbers))
    ]
    assert numbers == in_order
    references = re.findall(r"[(:,] ?(?:as in )?(\d+\.\d+)(?=[),;:])", SEMANTICS)
    assert references
    assert set(references) - {number for number, _ in rules()} == set()


def _raised() -> Iterator[tuple[str, str]]:
    """Yield (status, reason) of every error that the code can end a call with."""
    classes = {
        name: kind
        for name, kind in (vars(errors) | vars(denials)).items()
        if isinstance(kind, type) and issubclass(kind, errors.CommandError | denials.Denial)
    }
    for text in sources("coordd"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            if node.func.id not in classes:
                continue
            # A reason is written where it is raised, or it could not be found by whoever reads it in a log.
            reason = ast.literal_eval(node.args[0])
            error = classes[node.func.id](reason, "")
            failure = of_denial(error) if isinstance(error, denials.Denial) else of_command(error)
            yield failure.code.name, failure.reason
    overloaded = next(refusals(0, 1)).failure
    for failure in (of_message(""), of_defect(""), of_unreadable(), overloaded):
        yield failure.code.name, failure.reason
    yield from (("UNAVAILABLE", "DRAINING"), ("UNAVAILABLE", "STORE_FAILED"))


def test_the_table_of_errors_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (.*) \|$", SEMANTICS, re.MULTILINE)
    told = {
        (status, reason)
        for status, text in rows
        for reason in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b|\b(?:INTERNAL|DRAINING|OVERLOADED)\b", text)
    }
    assert told == set(_raised())


def _keys() -> Iterator[tuple[str, str]]:
    for name, field in Settings.model_fields.items():
        model: type[BaseModel] = section_model(field.annotation)
        for key, each in model.model_fields.items():
            yield name, each.alias or key


@pytest.mark.parametrize("section", sorted(Settings.model_fields))
def test_every_key_is_in_the_example(section: str) -> None:
    """Commented out or not, in a paragraph with a table of that section."""
    paragraphs = (ROOT / "examples" / "coordd.toml").read_text("utf-8").split("\n\n")
    header = re.compile(rf"^(?:# )?\[{section}[.\]]", re.MULTILINE)
    of_section = "\n".join(paragraph for paragraph in paragraphs if header.search(paragraph))
    keys = [key for name, key in _keys() if name == section]
    assert [key for key in keys if not re.search(rf"\b{key}\b", of_section)] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_to_a_heading_in_it() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
        if "://" not in link
    ]
    assert len(links) > 20
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name}: {link}"


def test_every_dependency_has_its_line_and_its_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    needed = {re.split(r"[^\w-]", text)[0] for group in groups for text in group} - {project["name"]}
    rows = re.findall(
        r"^\| ([\w, -]+)(?: \(.*?\))? \| .+ \| .+ \| (\S.*) \|$",
        (ROOT / "docs" / "dependencies.md").read_text("utf-8"),
        re.MULTILINE,
    )
    told = {name for names, _ in rows for name in names.split(", ")}
    assert needed - told == set()


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    for path in (ROOT / "docs" / "adr").glob("*.md"):
        assert path.read_text("utf-8").startswith(f"# {int(path.name[:4])}. "), path.name


def _logged_fields() -> set[str]:
    """Return the names of all fields that the daemon logs by themselves."""
    levels = {"debug", "info", "warning", "error", "critical"}
    calls = (
        node
        for folder in ("coordd/server", "coordd/rpc", "coordd/telemetry")
        for text in sources(folder)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels
    )
    return {
        keyword.arg for call in calls for keyword in call.keywords if keyword.arg not in (None, "exc_info")
    }


def test_every_field_of_the_log_is_documented() -> None:
    page = (ROOT / "docs" / "observability.md").read_text("utf-8")
    table = page.partition("| field | of which lines |")[2]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    documented = {field for row in rows for field in re.findall(r"`(\w+)`", row)}
    assert {"method", "call_id"} <= documented
    assert _logged_fields() - documented == set()
