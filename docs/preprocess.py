"""A preprocessor of mdBook: lets pages link to, and include, files of the repository that are no pages.

Pages are written for a code host, where `../proto/undertone/v1/emotion.proto` is a link to a file. In the book

- `{{#include ../FILE.md}}` takes the file in, with its links as they would be at its own place;
- a link to a file that some page takes in so leads to that page;
- a link to any other file or folder leads to a page that shows it, which is made here. They stand under *Files*.

mdBook starts it (`book.toml`) and talks JSON with it. Standard library only.
"""

import json
import os
import re
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PAGES = PurePosixPath("docs")
FILES = PurePosixPath("files")
# How files are coloured.
LANGUAGES = {
    ".env": "properties", ".js": "js", ".json": "json", ".mjs": "js", ".proto": "protobuf", ".py": "python", ".rs": "rust",
    ".sh": "sh", ".toml": "toml", ".ts": "ts", ".yaml": "yaml",
}  # fmt: skip
# More would be no page to read.
MAX_BYTES = 400_000

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
INCLUDE = re.compile(r"^\{\{#include (\S+\.md)\}\}$")
# Code in a line, a comment, or the target of a link or picture: whichever begins first.
SPAN = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))|(?P<comment><!--.*?-->)|\]\((?P<target>[^()\s]+)\)",
    re.DOTALL,
)


def is_elsewhere(target):
    """Whether a link's target is no file: another site, or a place on the same page."""
    return target.startswith(("#", "mailto:")) or "://" in target


def resolve(base, target):
    """The repository's path that `target`, in a file of the folder `base`, names; None if it leads out of it."""
    path = PurePosixPath(os.path.normpath(base / target))
    return None if path.parts[:1] == ("..",) or path.is_absolute() else path


def text_and_code(text):
    """Splits into (is_code, lines) by fences."""
    parts, fence = [(False, [])], None
    for line in text.splitlines(keepends=True):
        found = FENCE.match(line)
        if fence is None and found:
            fence = found[1]
            parts.append((True, [line]))
        elif fence is not None:
            parts[-1][1].append(line)
            if found and found[1].startswith(fence) and line.strip() == found[1]:
                fence = None
                parts.append((False, []))
        else:
            parts[-1][1].append(line)
    return [(code, "".join(lines)) for code, lines in parts if lines]


def outside_code(text, change):
    """`text` with `change` done to all that is no fenced code."""
    return "".join(part if code else change(part) for code, part in text_and_code(text))


def rewritten(text, change):
    """`text` with every link's target as `change` says, and without comments; code stays as it is."""

    def span(found):
        if found["code"]:
            return found[0]
        return "" if found["comment"] else f"]({change(found['target'])})"

    return outside_code(text, lambda part: SPAN.sub(span, part))


def relative(target, page):
    """A link from the page at `page` to the one at `target`, both below the pages' folder."""
    return PurePosixPath(os.path.relpath(target, page.parent)).as_posix()


class Site:
    """The book's pages, and what they refer to."""

    def __init__(self, chapters):
        self.chapters = chapters
        # File of the repository -> the page that takes it in, or that is made for it.
        self.pages = {}
        self.made = {}
        for chapter in chapters:
            base = (PAGES / chapter["path"]).parent
            for line in chapter["content"].splitlines():
                if (found := INCLUDE.match(line)) and (file := resolve(base, found[1])) and file.parts[0] != PAGES.name:
                    self.pages[file] = PurePosixPath(chapter["path"])

    def link(self, base, target, page):
        """Where `target`, written in a file of the folder `base` that is shown on `page`, leads in the book."""
        if is_elsewhere(target):
            return target
        path, _, anchor = target.partition("#")
        file = resolve(base, path)
        if file is None or not (ROOT / file).exists():
            raise SystemExit(f"{page}: there is no file {target}")
        # `git` lists folders of pages as well; the book begins with their first page.
        if file == PAGES:
            file = PAGES / "README.md"
        inside = file.relative_to(PAGES) if file.parts[0] == PAGES.name else self.page(file)
        if inside.name == "README.md":
            inside = inside.with_name("index.md")
        return relative(inside, page) + (f"#{anchor}" if anchor else "")

    def page(self, file):
        """The page on which a file of the repository stands."""
        if file not in self.pages:
            page = FILES / (file if file.suffix == ".md" else f"{file}.md")
            self.pages[file] = page.with_name("index.md") if page.name == "README.md" else page
            self.made[file] = None  # So that it is in order, and not made twice while it is being made.
            self.made[file] = self.shown(file)
        return self.pages[file]

    def shown(self, file):
        """The text of the page that is made for a file or folder."""
        page, path = self.pages[file], ROOT / file
        if path.is_dir():
            inside = sorted(entry.relative_to(path) for entry in path.rglob("*") if entry.is_file())
            shown = [
                entry.as_posix() for entry in inside if not any(part.startswith((".", "__")) for part in entry.parts)
            ]
            return f"# {file}\n\nIn this folder of the repository stand\n\n" + "".join(
                f"- `{entry}`\n" for entry in shown
            )
        if not is_shown(path):
            raise SystemExit(
                f"{file} is linked to and cannot be shown: it is no text, or has more than {MAX_BYTES} bytes"
            )
        text = path.read_text(encoding="utf-8")
        if file.suffix == ".md":
            note = f"*`{file}` of the repository, as it stands there. The test of this site does not run its commands.*\n\n"
            return note + self.taken_in(file, text, page)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        return f"# {file}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"

    def taken_in(self, file, text, page):
        """A Markdown file's text, as it is on `page`."""
        return rewritten(text, lambda target: self.link(file.parent, target, page))

    def rewrite(self, chapter):
        """A page as it is in the book."""
        page = PurePosixPath(chapter["path"])
        base = (PAGES / page).parent
        included = {}

        def include(line):
            found = INCLUDE.match(line.strip())
            file = resolve(base, found[1]) if found else None
            if file is None or file.parts[0] == PAGES.name:
                return line
            mark = f"\0{len(included)}\0\n"
            included[mark] = self.taken_in(file, (ROOT / file).read_text(encoding="utf-8"), page)
            return mark

        text = outside_code(chapter["content"], lambda part: "".join(map(include, part.splitlines(keepends=True))))
        text = rewritten(text, lambda target: self.link(base, target, page))
        for mark, what in included.items():
            text = text.replace(mark, what)
        chapter["content"] = text


def is_shown(path):
    """Whether a page can show it."""
    if path.is_dir():
        return True
    if path.stat().st_size > MAX_BYTES:
        return False
    try:
        return "\0" not in path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False


def chapters(items):
    """All pages of the book, drafts left out."""
    for item in items:
        if (chapter := item.get("Chapter") if isinstance(item, dict) else None) and chapter["path"]:
            yield chapter
            yield from chapters(chapter["sub_items"])


def new_chapter(name, path, content, number, inside=(), below=()):
    """A page as mdBook wants it. By the number it knows what stands below what; it is not shown."""
    return {
        "Chapter": {
            "name": name, "content": content, "number": list(number), "sub_items": list(inside), "path": str(path),
            "source_path": None, "parent_names": list(below),
        }
    }  # fmt: skip


def run(book):
    """Changes the book."""
    site = Site(list(chapters(book["items"])))
    for chapter in site.chapters:
        site.rewrite(chapter)
    if site.made:
        name = "Files of the repository"
        made = sorted(site.made)
        last = 1 + max((chapter["number"] or [0])[0] for chapter in site.chapters)
        inside = [
            new_chapter(str(file), site.pages[file], site.made[file], (last, place), below=[name])
            for place, file in enumerate(made, 1)
        ]
        rows = "\n".join(f"- [`{file}`]({relative(site.pages[file], FILES / 'all.md')})" for file in made)
        content = f"# {name}\n\nThose that pages of this book refer to.\n\n{rows}\n"
        book["items"] += [{"PartTitle": "Files"}, new_chapter(name, FILES / "all.md", content, (last,), inside)]


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    run(book)
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
