"""Audits what is installed and pinned, without a network: `make ci` runs it as a test.

Usage: audit_deps.py   prints one problem a line; exit code 1 if there is one.
Owns: which licences what we depend on may have. What takes a network, known vulnerabilities and versions that
were withdrawn, is `make audit-deps`.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PIN_FILES: Final = tuple(sorted((ROOT / "requirements").glob("*.txt")))

# What a licence is called in metadata, -> its SPDX name.
_SPDX: Final[Mapping[str, str]] = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "zpl 2.1": "ZPL-2.1",
    "gplv2": "GPL-2.0",
    "python software foundation license": "PSF-2.0",
    "psf-based": "PSF-2.0",
}
# Those under which code may stand beside ours, which is Apache-2.0, in one process.
PERMISSIVE: Final = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0",
        "MIT-CMU", "MPL-2.0", "PSF-2.0", "ZPL-2.1", "Zlib",
    }
)  # fmt: skip
# Only ever run beside, never linked or shipped: docs/dependencies.md says what for.
_BESIDE: Final = {"libfaketime": "GPL-2.0"}
# What an environment has of itself, and we ourselves.
_OF_THE_ENVIRONMENT: Final = frozenset({"pip", "setuptools", "coordd"})

_PIN: Final = re.compile(r"^(\S+?)==([^\s;\\]+)(.*(?:\n +--hash=\S+.*)*)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
_ROW: Final = re.compile(r"^\| ([\w, -]+)(?: \(.*?\))? \| .+ \| .+ \| (\S.*) \|$", re.MULTILINE)


def main() -> int:
    """Print every problem; return the exit code."""
    found = list(problems())
    for problem in found:
        print(problem)
    return 1 if found else 0


def problems() -> Iterator[str]:
    """Yield what is wrong, one line each."""
    pinned: dict[str, set[str]] = {}
    for file in PIN_FILES:
        yield from pin_problems(file.name, file.read_text("utf-8"))
        for name, version, _ in _PIN.findall(file.read_text("utf-8")):
            pinned.setdefault(normal(name), set()).add(version)
    installed = {normal(each.metadata["Name"]): each for each in metadata.distributions()}
    for name, distribution in sorted(installed.items()):
        yield from _installed_problems(name, distribution, pinned.get(name, set()))
    yield from documented_problems((ROOT / "docs" / "dependencies.md").read_text("utf-8"), installed)


def pin_problems(file: str, text: str) -> Iterator[str]:
    """Yield what is wrong with a file of pins: lines that are no pin, pins without a hash."""
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")) and not _PIN.match(line):
            yield f"{file}: {line}: is no pin"
    for name, version, rest in _PIN.findall(text):
        if not _HASH.search(rest):
            yield f"{file}: {name}=={version}: has no hash"


def _installed_problems(name: str, distribution: metadata.Distribution, versions: set[str]) -> Iterator[str]:
    if name in _OF_THE_ENVIRONMENT:
        return
    if distribution.version not in versions:
        yield f"{name} {distribution.version}: is installed, and pinned is {', '.join(versions) or 'none'}"
    licences = licences_of(distribution)
    if not licences & PERMISSIVE and _BESIDE.get(name) not in licences:
        yield f"{name}: its licence is {' or '.join(sorted(licences)) or 'unknown'}, which is not permissive"


def documented_problems(text: str, installed: Mapping[str, metadata.Distribution]) -> Iterator[str]:
    """Yield each licence in docs/dependencies.md that is not what the package's metadata say."""
    for names, licence in _ROW.findall(text):
        told = spdx(licence)
        for name in names.split(", "):
            distribution = installed.get(normal(name))
            if distribution is not None and told != licences_of(distribution):
                said = ", ".join(sorted(licences_of(distribution)))
                yield f"docs/dependencies.md: {name}: {licence}, but its metadata say {said}"


def licences_of(distribution: metadata.Distribution) -> frozenset[str]:
    """Return a package's licences, by SPDX."""
    told = distribution.metadata
    if "License-Expression" in told:
        return spdx(told["License-Expression"])
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in told.get_all("Classifier") or []
        if each.startswith("License :: ") and "DFSG" not in each
    ]
    text = next(iter(told.get_all("License") or []), "")
    # A class of licences says less than the field beside it; where that is whole text, it has to do.
    if text and "\n" not in text and len(classifiers) < 2:
        return spdx(text)
    return frozenset().union(*map(spdx, classifiers))


def spdx(expression: str) -> frozenset[str]:
    """Return the licences in an expression, whether one may choose or takes them all."""
    parts = re.split(r"\s+(?:AND|OR|and|or)\s+", expression)
    return frozenset(_SPDX.get(part.lower(), part.strip("()").removesuffix(" License")) for part in parts)


def normal(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
