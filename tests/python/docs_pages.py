"""The pages of the site, taken apart: blocks of code, what is said about each of them, headings and links.

What a page can say about a block, and who reads it:

- nothing: a block of shell (`sh`) is run by the test, in order with the others of its page, in one bash;
- `*Run by hand on 2026-11-26, ...*` or `*Not run: ...*`, as the next paragraph behind it: visible to readers;
- `<!-- server -->` before it: it is a server; it is started, waited for, and stopped when the next one starts or the page ends;
- `<!-- file: NAME -->` before it: it is written to that file, at this point of the page;
- `<!-- run -->` before it: a block of Python that is run, not only compiled; in the repository's README all are;
- `<!-- output -->` before it: what the block of code before it prints; `...` stands for anything, and the last
  digit of a number may be another one.

And between blocks, not visible: `<!-- first: COMMAND -->` is run at this point, `<!-- server: COMMAND -->` is a server as above.
"""

import os
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHELL = {"sh", "bash", "shell", "console"}

FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^`\n]*)$")
DIRECTIVE = re.compile(r"^ *<!-- (server|file|run|output|first)(?:: (.*?))? -->$")
INCLUDE = re.compile(r"^\{\{#include (\S+)\}\}$")
BY_HAND = re.compile(r"\*Run by hand on (\d{4}-\d{2}-\d{2})[.,;:] ?.*\*", re.DOTALL)
NOT_RUN = re.compile(r"\*Not run: .{20,}\*", re.DOTALL)


@dataclass
class Block:
    """Fenced code."""

    page: Path
    line: int
    language: str
    text: str
    # Directives before it: name -> value.
    says: dict = field(default_factory=dict)
    # The paragraph behind it.
    behind: str = ""

    @property
    def where(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def mark(self):
        """`by hand`, `not run`, or nothing."""
        if BY_HAND.fullmatch(self.behind):
            return "by hand"
        return "not run" if NOT_RUN.fullmatch(self.behind) else ""


@dataclass
class Hidden:
    """A directive that stands by itself."""

    line: int
    kind: str
    text: str


def paragraph(lines, at):
    """The paragraph that begins at or behind line `at`, as one line."""
    while at < len(lines) and not lines[at].strip():
        at += 1
    end = at
    while end < len(lines) and lines[end].strip():
        end += 1
    return " ".join(line.strip() for line in lines[at:end])


def parts(page):
    """Blocks and directives of a page, in order; of what it includes too, whose mark stands behind the `#include`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, says, at = [], {}, 0
    while at < len(lines):
        line = lines[at]
        if fence := FENCE.match(line):
            end = at + 1
            while not (lines[end].strip().startswith(fence[2]) and not lines[end].strip().strip(fence[2][0])):
                end += 1
            text = textwrap.dedent("\n".join(lines[at + 1 : end])) + "\n"
            language = re.split(r"[ ,]", fence[3].strip())[0]
            found.append(Block(page, at + 1, language, text, says, paragraph(lines, end + 1)))
            says, at = {}, end
        elif directive := DIRECTIVE.match(line):
            kind, value = directive[1], directive[2]
            if kind == "first" or (kind == "server" and value):
                found.append(Hidden(at + 1, kind, value))
            else:
                says[kind] = value or ""
        elif include := INCLUDE.match(line.strip()):
            behind = paragraph(lines, at + 1)
            for block in parts((page.parent / include[1]).resolve()):
                if isinstance(block, Block):
                    found.append(Block(block.page, block.line, block.language, block.text, block.says, behind))
        elif line.strip() and says:
            raise AssertionError(f"{page}:{at + 1}: {says} is said of no block")
        at += 1
    return found


def blocks(page):
    return [part for part in parts(page) if isinstance(part, Block)]


def in_summary():
    """The pages that SUMMARY.md lists, in its order."""
    text = (DOCS / "SUMMARY.md").read_text(encoding="utf-8")
    return [DOCS / target for target in re.findall(r"\]\(([^)]+)\)", text)]


def markdown_files():
    """All Markdown files of the repository that people wrote or read."""
    # The last two hold templates of model cards, whose links are right where the cards are written.
    skipped = {
        "target",
        "node_modules",
        "generated",
        "dist",
        "runs",
        "data",
        "undertone_training",
        "undertone_finetune",
    }
    for folder, inside, files in os.walk(ROOT):
        inside[:] = sorted(name for name in inside if name not in skipped and not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".md"))


def without_code(text):
    """A page's text with fenced code, code in lines and comments blanked out."""
    lines, fence = [], None
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence is None and found:
            fence = found[2]
        elif fence is not None:
            if found and found[2].startswith(fence) and not found[3].strip():
                fence = None
        else:
            lines.append(line)
            continue
        lines.append("")
    text = re.sub(r"<!--.*?-->", "", "\n".join(lines), flags=re.DOTALL)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", lambda code: re.sub(r"[^\n]", " ", code[0]), text, flags=re.DOTALL)


def links(text):
    """Targets of links and pictures in Markdown."""
    return [found[1] for found in re.finditer(r"\]\(([^()\s]+)\)", without_code(text))]


def anchors(text):
    """The anchors of a page's headings, as code hosts make them."""
    lines, fence, seen, made = text.splitlines(), None, {}, set(re.findall(r'<a id="([^"]+)">', text))
    for line in lines:
        if found := FENCE.match(line):
            fence = (
                found[2] if fence is None else None if found[2].startswith(fence) and not found[3].strip() else fence
            )
        elif fence is None and (heading := re.match(r"^#{1,6} +(.*?) *#*$", line)):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            made.add(f"{slug}-{count}" if count else slug)
    return made
