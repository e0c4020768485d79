"""List the licences of everything that is installed in the environment that runs this.

    python benchmarks/licences.py --into docs/licences.md       # what `make licences` does

From what each package says of itself (License-Expression, classifiers, License), which nobody has checked. Some pack
libraries of others into their wheels (FFmpeg, GEOS, OpenBLAS with GCC's runtime); their licence files are searched for
the texts of the GPL and the LGPL, and the last column has what is found.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from eyetoy_mm.tables import markdown_table, write_into

PROGRAM = "benchmarks/licences.py"
OURS = "eyetoy-mm"
# What asks for more than naming the authors when it is passed on, strongest first.
CONDITIONS = ("AGPL", "LGPL", "GPL", "MPL", "EPL", "NVIDIA Proprietary")
LICENCE_FILE = re.compile(r"LICEN[SC]E|COPYING|NOTICE|(3RD|THIRD).?PARTY", re.IGNORECASE)
# By their titles: that other licences are "compatible with the GPL" is said in many.
INSIDE = {
    "LGPL": r"GNU (LESSER|LIBRARY) GENERAL PUBLIC LICENSE,? Version",
    "GPL": r"GNU GENERAL PUBLIC LICENSE,? Version",
    "GCC's exception to it": r"GCC RUNTIME LIBRARY EXCEPTION,? Version",
}
PROPRIETARY = re.compile(r"nvidia.*(proprietary|software)|other/proprietary", re.IGNORECASE)


def licence(package: Distribution) -> str:
    """What a package says that its licence is, in one line."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [text for text in metadata.get_all("Classifier") or () if text.startswith("License :: ")]
    names = [text.split(" :: ")[-1] for text in classifiers if text != "License :: OSI Approved"]
    if names:
        return ", ".join(dict.fromkeys(names))
    first = (metadata.get("License") or "").strip().split("\n")[0]
    return first if 0 < len(first) <= 60 else "not said"


def condition(text: str) -> str | None:
    """The strongest of :data:`CONDITIONS` that a licence is of."""
    for name, short in (("Lesser ", "LGPL"), ("Affero ", "AGPL"), ("", "GPL")):
        text = text.replace(f"GNU {name}General Public License", short)
    text = text.replace("Mozilla Public License", "MPL")
    if PROPRIETARY.search(text):
        return "NVIDIA Proprietary"
    return next((name for name in CONDITIONS if re.search(rf"(?<![A-Z]){name}", text)), None)


def named_inside(package: Distribution) -> str:
    """Which of :data:`INSIDE` stand in the licence files of a package: the licences of libraries packed into it."""
    found = set()
    for file in package.files or ():
        path = Path(str(package.locate_file(file)))
        if LICENCE_FILE.search(path.name) and path.suffix not in (".py", ".pyc", ".pyi") and path.is_file():
            text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
            found |= {name for name, pattern in INSIDE.items() if re.search(pattern, text)}
    return ", ".join(name for name in INSIDE if name in found)


def report(packages: Iterable[Distribution]) -> str:
    """The page's text: the counts, what asks for more, and the table."""
    found = {package.metadata["Name"]: package for package in packages}
    found = {name: found[name] for name in sorted(found, key=str.lower) if name and name != OURS}
    licences = {name: licence(package) for name, package in found.items()}
    asking: dict[str, list[str]] = {}
    for name, text in licences.items():
        if kind := condition(text):
            asking.setdefault(kind, []).append(f"{name} ({text})")
    lines = [f"{len(found)} packages, {sum(text == 'not said' for text in licences.values())} of which say nothing."]
    lines += [f"**{kind}**: {', '.join(asking[kind])}." for kind in CONDITIONS if kind in asking]
    if not asking.keys() & {"AGPL", "GPL", "LGPL"}:
        lines.append("None says that it is under the GPL, LGPL or AGPL itself.")
    inside = {name: named_inside(package) for name, package in found.items()}
    for kind in ("LGPL", "GPL"):
        names = [name for name, kinds in inside.items() if kind in kinds.split(", ")]
        wheels = ", ".join(names) or "none"
        lines.append(f"The text of the **{kind}** is in these wheels, for what is packed into them: {wheels}.")
    rows = [(name, package.version, licences[name], inside[name]) for name, package in found.items()]
    common = Counter(licences.values()).most_common(3)
    lines.append("Most: " + ", ".join(f"{text} ({count})" for text, count in common) + ".")
    return "\n\n".join((*lines, markdown_table(("package", "version", "licence", "in its licence files"), rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--into", type=Path, help="page that keeps a place for the table")
    args = parser.parse_args()
    text = report(distributions())
    if args.into is None:
        print(text)
    else:
        write_into(args.into, PROGRAM, text)


if __name__ == "__main__":
    main()
