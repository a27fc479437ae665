"""The site: that it builds, that its links lead somewhere, and that what it says can be done.

Every command of a page is run, or says visibly when somebody ran it or why nobody did; `docs_pages` has the rules. The binary's
path is in the environment variable UNDERTONE_BIN; mdbook is on the PATH, where `make test-python` puts it."""

import ast
import concurrent.futures
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
import xml.etree.ElementTree
from pathlib import Path
from urllib.parse import urlsplit

import docs_links
import docs_shell
import pytest
from docs_pages import BY_HAND, DOCS, ROOT, SHELL, Hidden, blocks, in_summary, markdown_files

import yaml

TIMEOUT_S = 60
PAGES = in_summary()
README = ROOT / "README.md"
RUN = [
    page
    for page in [*PAGES, README]
    if page.exists() and any(block.language in SHELL or "run" in block.says for block in blocks(page))
]
NAMES = [str(page.relative_to(ROOT)) for page in RUN]
# Of the repository's README, by how they begin: what is not run of it, where it does not say so itself.
README_MARKS = {
    "make serve": "run by hand on 2026-11-27, in a fresh clone: it compiles for minutes",
    "arecord ": "run by hand on 2026-11-27, with a virtual microphone of PulseAudio",
    "python3 -m venv .venv ": "run by hand on 2026-11-27; docs/guides/grpc.md does the same, and is run",
    "target/release/undertone identities token ": "docs/security.md has the same, and is run",
    "undertone corpus scan ": "run by hand on 2026-11-27, on the four corpora, which are not in the repository",
    "undertone evaluate ": "run by hand on 2026-11-27, on the same",
}
# It says "in a second terminal", and speaks of a call.wav.
README_BEFORE = [Hidden(0, "first", "cp tests/data/hello.wav call.wav"), Hidden(0, "server", "undertone serve")]


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("UNDERTONE_BIN")
    assert path, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
    return Path(path).resolve()


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """The Python client, with the protocol's code generated anew beside a copy of it."""
    folder = tmp_path_factory.mktemp("modules")
    client = folder / "client"
    shutil.copytree(
        ROOT / "clients/python/src", client / "src", ignore=shutil.ignore_patterns("_generated", "__pycache__")
    )
    shutil.copy(ROOT / "clients/python/generate.py", client)
    shutil.copytree(ROOT / "proto", client / "proto")
    made = subprocess.run([sys.executable, client / "generate.py"], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert made.returncode == 0, made.stderr
    return client / "src"


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The built site."""
    mdbook = shutil.which("mdbook")
    assert mdbook, "mdbook is missing: `make test-python` installs it and puts it on the PATH, and so does `make docs`"
    out = tmp_path_factory.mktemp("site") / "book"
    built = subprocess.run(
        [mdbook, "build", DOCS, "--dest-dir", out], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert built.returncode == 0, built.stderr
    complaints = [line for line in built.stderr.splitlines() if re.match(r" *(WARN|ERROR)", line)]
    assert not complaints, "\n".join(complaints)
    return out


@pytest.fixture(scope="session")
def script():
    """A script of docs/ as a module."""

    def load(name):
        # Compiled here, so that no byte code is left among the pages.
        module = types.ModuleType(name)
        module.__file__ = str(DOCS / f"{name}.py")
        exec(compile(Path(module.__file__).read_text(encoding="utf-8"), module.__file__, "exec"), module.__dict__)
        return module

    return load


# --- links ------------------------------------------------------------------------------------


def test_every_page_is_in_the_book():
    pages = {page for page in markdown_files() if DOCS in page.parents}
    assert pages - {DOCS / "SUMMARY.md"} == set(PAGES)
    assert len(PAGES) == len(set(PAGES))


def test_links_of_the_book_lead_somewhere(book):
    assert len(list(book.rglob("*.html"))) > len(PAGES)
    dead = list(docs_links.dead_in_book(book))
    assert not dead, "\n".join(dead)


def test_links_of_markdown_files_lead_somewhere():
    dead = [problem for page in markdown_files() for problem in docs_links.dead_in(page)]
    assert not dead, "\n".join(dead)


def test_links_to_other_sites_are_well_formed():
    found = docs_links.external(markdown_files())
    assert found
    for url, pages in found.items():
        parts = urlsplit(url)
        fine = parts.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc or "")
        assert fine, f"{url} in {pages}"


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def outcomes(binary, modules, tmp_path_factory):
    """What came of every page that has something to run; several run side by side."""
    for tool in ("bash", "curl", "openssl"):
        assert shutil.which(tool), f"{tool} is missing: apt-get install {tool}"
    assert shutil.which("s3s-fs"), "s3s-fs is missing: `make .tools/bin/s3s-fs`, and put .tools/bin into the PATH"
    folder = tmp_path_factory.mktemp("pages")
    copy = docs_shell.checkout(folder / "checkout")

    def run(number, page):
        own = folder / f"{number:02}-{page.stem}"
        own.mkdir()
        own_rules = (README_MARKS, README_BEFORE) if page == README else ()
        return docs_shell.run(page, own, copy, binary, modules, *own_rules)

    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as pool:
        futures = [pool.submit(run, number, page) for number, page in enumerate(RUN)]
        return {name: future.result() for name, future in zip(NAMES, futures, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_page_do_what_it_says(outcomes, name):
    assert not outcomes[name].problem, outcomes[name].problem


def test_commands_are_run_or_say_when_they_were_or_why_not():
    run = by_hand = not_run = 0
    today = datetime.date.today() + datetime.timedelta(days=1)
    for page in [*PAGES, README]:
        for block in blocks(page):
            if block.language not in SHELL:
                continue
            known = block.mark or (page == README and block.text.startswith(tuple(README_MARKS)))
            # What a page takes in from elsewhere is never run: it needs one of the two.
            assert known or block.page == page, (
                f"{block.where}, on {page.name}: say behind the include why its commands are not run"
            )
            if block.mark == "by hand":
                assert datetime.date.fromisoformat(BY_HAND.fullmatch(block.behind)[1]) <= today, block.where
            by_hand += block.mark == "by hand"
            not_run += bool(known) and block.mark != "by hand"
            run += not known
    assert run > by_hand + not_run, (run, by_hand, not_run)
    shell = [block.text for block in blocks(README) if block.language in SHELL]
    for start in README_MARKS:
        assert any(text.startswith(start) for text in shell), (
            f"README.md has no block {start!r}: take it out of README_MARKS"
        )


# --- other code -------------------------------------------------------------------------------

# Language -> what checks it: a function below, or words.
CHECKED = {
    "yaml": "checked", "json": "checked", "python": "checked", "xml": "checked", "toml": "checked", "rust": "quoted", "ts": "quoted",
    "sql": "tests/python/test_archives.py", "js": "nothing: a sketch of a page", "text": "nothing: output", "": "nothing: output",
}  # fmt: skip


def all_blocks(language=None):
    for page in PAGES:
        for block in blocks(page):
            if block.page == page and (language is None or block.language == language):
                yield block


def test_it_is_known_what_checks_each_block_of_code():
    for block in all_blocks():
        assert block.language in CHECKED or block.language in SHELL, f"{block.where}: {block.language}"


def test_json_can_be_read():
    for block in all_blocks("json"):
        whole_or_lines = is_json(block.text) or all(map(is_json, block.text.splitlines()))
        assert whole_or_lines, block.where


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_toml_and_xml_can_be_read():
    for block in all_blocks("toml"):
        tomllib.loads(block.text)
    for block in all_blocks("xml"):
        xml.etree.ElementTree.fromstring(block.text)


def test_python_compiles():
    found = [*all_blocks("python"), *(block for block in blocks(README) if block.language == "python")]
    for block in found:
        compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert found


def squeezed(text):
    return re.sub(r"\s+", "", text)


def test_rust_and_typescript_stand_in_what_their_own_tests_check():
    readme = squeezed((ROOT / "clients/typescript/README.md").read_text(encoding="utf-8"))
    for block in all_blocks("ts"):
        assert squeezed(block.text) in readme, (
            f"{block.where}: it stands not so in clients/typescript/README.md, which is compiled"
        )
    # Of the check of signatures there is a copy that is tested; it needs its imports from elsewhere.
    signature = squeezed((ROOT / "src/escalation/sinks/signature.rs").read_text(encoding="utf-8"))
    for block in all_blocks("rust"):
        code = "\n".join(line for line in block.text.splitlines() if not line.startswith(("use ", "///")))
        assert squeezed(code) in signature, f"{block.where}: it stands not so in src/escalation/sinks/signature.rs"


WHOLE = {"policy": ["policy", "check"], "delivery": ["delivery", "check"], "identities": ["identities", "check"]}


def kind_and_text(block, folder):
    """Which of our files a block of YAML is, and its text made whole: identities may lack the head, hashes their ends."""
    text = re.sub(r"'sha256:([0-9a-f]*)\.\.\.'", lambda hash: f"'sha256:{hash[1]:0<64}'", block.text)
    text = text.replace("/run/secrets/", f"{folder}/")
    read = yaml.safe_load(text)
    if isinstance(read, list) and all("roles" in one for one in read):
        return "identities", "schema: undertone.identities/v1\nidentities:\n" + re.sub(
            "^", "  ", text, flags=re.MULTILINE
        )
    if isinstance(read, dict) and "jwt" in read and "schema" not in read:
        return "identities", f"schema: undertone.identities/v1\n{text}"
    schema = read.get("schema", "") if isinstance(read, dict) else ""
    found = re.fullmatch(r"undertone\.(\w+)/v1", str(schema))
    return (found[1] if found else None), text


@pytest.fixture(scope="session")
def secrets(tmp_path_factory):
    """A folder with every file of secrets that pages name, and the variables, each a secret that any sink takes."""
    folder = tmp_path_factory.mktemp("secrets")
    text = "\n".join(block.text for block in all_blocks("yaml"))

    def secret(name):
        # Webhooks have theirs with a prefix, AudioHook as base64 alone.
        return ("" if "client" in name or "AUDIOHOOK" in name else "whsec_") + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    for name in re.findall(r"/run/secrets/([\w.-]+)", text):
        (folder / name).write_text(secret(name))
    return folder, {name: secret(name) for name in re.findall(r"\{env: (\w+)\}", text)}


@pytest.mark.parametrize("kind", WHOLE)
def test_yaml_is_what_the_program_takes(binary, secrets, tmp_path, kind):
    folder, variables = secrets
    found = 0
    for number, block in enumerate(all_blocks("yaml")):
        one, text = kind_and_text(block, folder)
        if one != kind:
            continue
        found += 1
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [binary, *WHOLE[kind], path], capture_output=True, text=True, timeout=TIMEOUT_S, env=os.environ | variables
        )  # fmt: skip
        assert done.returncode == 0, f"{block.where}: {done.stdout}{done.stderr}"
    assert found


def test_yaml_can_be_read():
    for block in all_blocks("yaml"):
        list(yaml.safe_load_all(block.text))


def test_the_cookbook_has_whole_policies():
    cookbook = DOCS / "policies-cookbook.md"
    found = [yaml.safe_load(block.text) for block in blocks(cookbook) if block.language == "yaml"]
    assert len(found) >= 8
    names = [policy["name"] for policy in found]
    assert len(set(names)) == len(names) and all(policy["schema"] == "undertone.policy/v1" for policy in found)


# --- what is made -----------------------------------------------------------------------------


def test_the_reference_is_what_the_protocol_and_the_program_say(binary, script):
    reference = script("reference")
    for name, text in reference.pages(binary).items():
        path = reference.OUT / name
        there = path.exists() and path.read_text(encoding="utf-8") == text
        assert there, f"docs/reference/{name} is not what docs/reference.py makes: run `make docs-reference`"
    by_hand = {"errors.md"}
    assert {path.name for path in reference.OUT.glob("*.md")} == {*reference.pages(binary), *by_hand}


def test_the_pictures_show_the_figures_that_there_are(script):
    plots = script("plots")
    for name, data in plots.figures().items():
        picture = (plots.OUT / f"{name}.svg").read_text(encoding="utf-8")
        assert f"figures {plots.digest(data)}" in picture, f"docs/plots/{name}.svg shows old figures: run docs/plots.py"
    assert {path.stem for path in plots.OUT.glob("*.svg")} == set(plots.figures())


# Where reasons are given to clients, and what else is written in capitals there.
REASONS = ["src/server/status.rs", "src/server/identity/error.rs", "src/session/checkpoint.rs"]


def test_the_page_of_errors_has_every_reason_and_no_other():
    text = (DOCS / "reference/errors.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z][A-Z_]+)` \|", text, re.MULTILINE))
    given = set()
    for path in REASONS:
        source = (ROOT / path).read_text(encoding="utf-8").split("#[cfg(test)]")[0]
        given |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', source))
    assert documented == given, (documented - given, given - documented)
