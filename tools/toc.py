"""The table of contents, as every tool reads it."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path = ROOT) -> list[tuple[str, int | None]]:
    """The pages of _toc.yml in their order: (name without suffix, its chapter's number or None)."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = [(toc["root"], None)]
    number = 0
    for part in toc.get("parts", [toc]):
        for chapter in part.get("chapters", []):
            number += bool(part.get("numbered"))
            found.append((chapter["file"], number if part.get("numbered") else None))
    return found
