"""What mkdocs does beyond its settings in mkdocs.yml: pages where their files are, the reference, and equations.

Pages link to each other, to pictures and to other files by the paths that these have in the checkout, as they are read
there; so each file of the site keeps this path. Everything that a page leads to is part of the site.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "eyetoy_mm"
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[#)])")  # target of a link or picture, without its anchor


def pages() -> list[str]:
    """Markdown files of the site, as paths below the root: those there and in docs/, and what they lead to."""
    found = [
        path.relative_to(ROOT).as_posix() for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md"))
    ]
    for page in found:  # grows
        found += [link for link in links(page) if link.endswith(".md") and link not in found]
    return found


def links(page: str) -> list[str]:
    """Files in the checkout that a page leads to, as paths below the root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [((ROOT / page).parent / unquote(link)).resolve() for link in _LINK.findall(text)]
    return list(dict.fromkeys(target.relative_to(ROOT).as_posix() for target in targets if target.is_file()))


def references() -> dict[str, list[str]]:
    """Modules of each page of the reference, by the page's name: a public module, or a folder with all below it."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.stem != "__main__" and not any(part.startswith("_") and part != "__init__" for part in parts):
            module = ".".join(part for part in parts if part != "__init__")
            found.setdefault(parts[1] if len(parts) > 1 and parts[1] != "__init__" else "eyetoy_mm", []).append(module)
    return found


def mathml(source: str, *_: object, **__: object) -> str:
    """An equation, in TeX, as browsers show it without a program."""
    from latex2mathml.converter import convert

    return convert(source, display="block")


# --- Events of mkdocs -----------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the reference into the navigation."""
    *rest, last = config.nav
    names = [f"reference/{name}.md" for name in references()]
    config.nav = [*rest, {next(iter(last)): [{PurePosixPath(name).stem: name} for name in names]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all files of the site."""
    from mkdocs.structure.files import File, InclusionLevel

    names = pages()
    for name in dict.fromkeys([*names, *(link for page in names for link in links(page))]):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name), inclusion=InclusionLevel.INCLUDED))
    for name, modules in references().items():
        text = "\n\n".join(f"::: {module}" for module in modules)
        page = f"reference/{name}.md"
        files.append(File.generated(config, page, content=f"# {name}\n\n{text}\n", inclusion=InclusionLevel.INCLUDED))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Write folders of the checkout, which are no part of the site, as names instead of links."""
    folder = (ROOT / page.file.src_uri).parent
    return re.sub(
        r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)\)",
        lambda link: link[1] if (folder / link[2]).is_dir() else link[0],
        markdown,
    )
