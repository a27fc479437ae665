"""Links: of Markdown files, as a code host follows them, and of the built book, as a browser does."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs_pages import ROOT, anchors, links


def is_external(target):
    return "://" in target or target.startswith(("mailto:", "data:"))


def dead_in(page):
    """Relative links of a Markdown file that lead nowhere, or to a heading that there is not."""
    text = page.read_text(encoding="utf-8")
    for target in links(text):
        if is_external(target):
            continue
        path, _, anchor = target.partition("#")
        there = Path(os.path.normpath(page.parent / unquote(path))) if path else page
        if ROOT not in there.parents or not there.exists():
            yield f"{page.relative_to(ROOT)}: {target}"
        elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: {target}: there is no such heading"


class Page(HTMLParser):
    """What a page of the book refers to, and what can be referred to on it."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.targets = set(), []
        self.twice = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if name := found.get("id"):
            if name in self.ids:
                self.twice.append(name)
            self.ids.add(name)
        if tag == "a" and found.get("name"):
            self.ids.add(found["name"])
        for key in ("href", "src"):
            if found.get(key):
                self.targets.append(found[key])


def dead_in_book(book):
    """Links of the built book that lead nowhere."""
    pages = {path: Page(path) for path in sorted(book.rglob("*.html"))}
    for path, page in pages.items():
        # Its links are from the root of a site; the server that shows it is unknown.
        if path.name == "404.html":
            continue
        for target in page.targets:
            if is_external(target):
                continue
            parts = urlsplit(target)
            there = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if there.is_dir():
                there /= "index.html"
            if book not in there.parents or not there.exists():
                yield f"{path.relative_to(book)}: {target}"
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                yield f"{path.relative_to(book)}: {target}: there is no such place"


def external(pages):
    """Links to other sites: URL -> the files that have it."""
    found = {}
    for page in pages:
        for target in links(page.read_text(encoding="utf-8")):
            if is_external(target):
                found.setdefault(target, []).append(str(page.relative_to(ROOT)))
    return found
