"""Makes docs/reference: the protocol from proto/, and the command line and all settings from the program's own help.

    make docs-reference                                           # or, in an environment with grpcio-tools:
    UNDERTONE_BIN=target/debug/undertone python docs/reference.py

With `--check` nothing is written; the exit code is 1 if a page is not what it would be. A test does that.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
OUT = ROOT / "docs/reference"
PACKAGE = "undertone.v1"
NOTE = "<!-- Made by docs/reference.py: change what it reads, and run `make docs-reference`. -->\n\n"
WIDTH = 120

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    getattr(Field, f"TYPE_{name.upper()}"): name
    for name in "double float int64 uint64 int32 uint32 bool string bytes".split()
}
# Numbers of fields in descriptor.proto, which say where in a file a comment stands.
MESSAGE, ENUM, SERVICE, FIELD, NESTED_MESSAGE, NESTED_ENUM, ONEOF, METHOD, VALUE = 4, 5, 6, 2, 3, 4, 8, 2, 2
WELL_KNOWN = {
    "google.protobuf.Duration": ("Duration", "https://protobuf.dev/reference/protobuf/google.protobuf/#duration"),
    "google.protobuf.Timestamp": ("Timestamp", "https://protobuf.dev/reference/protobuf/google.protobuf/#timestamp"),
}


def descriptors():
    """The protocol's files, with their comments."""
    files = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        options = [f"-I{PROTO}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *options, *files]):
            raise SystemExit("protoc refuses the protocol")
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    # Services first, then the vocabulary.
    return sorted(found, key=lambda file: (not file.service, file.name))


def anchor(heading):
    """The anchor of a heading, as code hosts and mdBook make it."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


class Protocol:
    """Where everything stands, so that it can be linked to."""

    def __init__(self, files):
        self.files = files
        # Full name of a type or method -> page; the anchor follows from its name within the package.
        self.places = {}
        # Short name, as comments use it -> full names.
        self.short = {}
        for file in files:
            page = self.page(file)
            for service in file.service:
                self.put(service.name, page)
                for method in service.method:
                    self.put(f"{service.name}.{method.name}", page, method.name)
            for message in file.message_type:
                self.put_message(message, "", page)
            for enum in file.enum_type:
                self.put_enum(enum, "", page)

    def put(self, name, page, *short):
        self.places[f"{PACKAGE}.{name}"] = page
        for word in (name, *short):
            self.short.setdefault(word, f"{PACKAGE}.{name}")

    def put_message(self, message, above, page):
        name = above + message.name
        self.put(name, page)
        for nested in message.nested_type:
            if not nested.options.map_entry:
                self.put_message(nested, f"{name}.", page)
        for nested in message.enum_type:
            self.put_enum(nested, f"{name}.", page)
        for part in (*message.field, *message.oneof_decl):
            self.short.setdefault(f"{name}.{part.name}", f"{PACKAGE}.{name}")

    def put_enum(self, enum, above, page):
        self.put(above + enum.name, page, *(value.name for value in enum.value))

    @staticmethod
    def page(file):
        return Path(file.name).stem + ".md"

    def link(self, full, page, text=None):
        """A link to a type or method, from `page`."""
        if full in WELL_KNOWN:
            name, where = WELL_KNOWN[full]
            return f"[{name}]({where})"
        name = full.removeprefix(f"{PACKAGE}.")
        there = self.places[full]
        return f"[{text or f'`{name}`'}]({'' if there == page else there}#{anchor(name)})"

    def words(self, comment, page):
        """A comment as Markdown in one line, with links."""

        def code(found):
            full = self.short.get(found[1])
            return self.link(full, page, found[0]) if full else found[0]

        text = " ".join(comment.split())
        return re.sub(r"`([\w.]+)`", code, text)


class Page:
    """One file of the protocol as a page."""

    def __init__(self, protocol, file):
        self.protocol, self.file, self.name = protocol, file, protocol.page(file)
        self.comments = {tuple(place.path): place for place in file.source_code_info.location}
        self.lines = []

    def comment(self, *path):
        found = self.comments.get(path)
        return found.leading_comments if found else ""

    def about(self):
        """What the file is about: the comment above `syntax`."""
        return " ".join(self.comment(12).split())

    def words(self, *path):
        return self.protocol.words(self.comment(*path), self.name)

    def paragraphs(self, *path):
        for paragraph in re.split(r"\n\s*\n", self.comment(*path).strip()):
            self.lines += [*wrapped(self.protocol.words(paragraph, self.name)), ""]

    def text(self):
        file = self.file
        self.lines += [f"# {Path(file.name).name}", "", *wrapped(self.about()), ""]
        self.lines += [f"[`proto/{file.name}`](../../proto/{file.name}), package `{file.package}`.", ""]
        for index, service in enumerate(file.service):
            self.service(service, (SERVICE, index))
        places = [
            (self.comments[MESSAGE, index].span[0], self.message, message, (MESSAGE, index))
            for index, message in enumerate(file.message_type)
        ]
        places += [
            (self.comments[ENUM, index].span[0], self.enum, enum, (ENUM, index))
            for index, enum in enumerate(file.enum_type)
        ]
        for _, show, what, path in sorted(places, key=lambda place: place[0]):
            show(what, path, "")
        headings = [line.lstrip("# ") for line in self.lines if line.startswith("#")]
        assert len({anchor(heading) for heading in headings}) == len(headings), (
            f"{file.name}: two headings have one anchor"
        )
        return NOTE + "\n".join(self.lines).rstrip() + "\n"

    def service(self, service, path):
        self.lines += [f"## {service.name}", ""]
        self.paragraphs(*path)
        for index, method in enumerate(service.method):
            name = f"{service.name}.{method.name}"
            takes = ("stream of " if method.client_streaming else "") + self.protocol.link(
                method.input_type[1:], self.name
            )
            gives = ("stream of " if method.server_streaming else "") + self.protocol.link(
                method.output_type[1:], self.name
            )
            self.lines += [f"### {name}", ""]
            self.lines += [f"{takes} → {gives}; over HTTP/2 `/{self.file.package}.{service.name}/{method.name}`", ""]
            self.paragraphs(*path, METHOD, index)

    def message(self, message, path, above):
        name = above + message.name
        self.lines += [f"## {name}", ""]
        self.paragraphs(*path)
        if message.field:
            self.lines += ["| field | no. | type | what |", "|---|---|---|---|"]
            for index, field in enumerate(message.field):
                kind, what = self.type(message, field), self.cell(message, field, path, index)
                self.lines.append(f"| `{field.name}` | {field.number} | {kind} | {what} |")
            self.lines.append("")
        for index, nested in enumerate(message.enum_type):
            self.enum(nested, (*path, NESTED_ENUM, index), f"{name}.")
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                self.message(nested, (*path, NESTED_MESSAGE, index), f"{name}.")

    def cell(self, message, field, path, index):
        what = self.words(*path, FIELD, index)
        if field.HasField("oneof_index") and not field.proto3_optional:
            oneof = message.oneof_decl[field.oneof_index]
            what = f"*One of `{oneof.name}`:* {what}"
        return what.replace("|", r"\|")

    def type(self, message, field):
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                key, value = nested.field
                return f"map of {self.one(key)} to {self.one(value)}"
        name = self.one(field)
        if field.label == Field.LABEL_REPEATED:
            return f"list of {name}"
        return f"optional {name}" if field.proto3_optional else name

    def one(self, field):
        return SCALARS.get(field.type) or self.protocol.link(field.type_name[1:], self.name)

    def enum(self, enum, path, above):
        self.lines += [f"## {above}{enum.name}", ""]
        self.paragraphs(*path)
        self.lines += ["| value | no. | what |", "|---|---|---|"]
        for index, value in enumerate(enum.value):
            what = self.words(*path, VALUE, index).replace("|", r"\|")
            self.lines.append(f"| `{value.name}` | {value.number} | {what} |")
        self.lines.append("")


def wrapped(text):
    """Lines of at most WIDTH; a link is never broken inside its target."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def overview(protocol):
    """The page of all calls."""
    rows = []
    for file in protocol.files:
        page = Page(protocol, file)
        for s, service in enumerate(file.service):
            for m, method in enumerate(service.method):
                full = f"{PACKAGE}.{service.name}.{method.name}"
                what = protocol.words(page.comment(SERVICE, s, METHOD, m).split("\n\n")[0], "api.md")
                kind = {(True, True): "both ways", (False, True): "server stream"}.get(
                    (method.client_streaming, method.server_streaming), "unary"
                )
                rows.append(f"| {protocol.link(full, 'api.md')} | {kind} | {what.replace('|', chr(92) + '|')} |")
    files = [
        f"| [{Path(file.name).name}]({protocol.page(file)}) | {Page(protocol, file).about()} |"
        for file in protocol.files
    ]
    return NOTE + OVERVIEW.format(calls="\n".join(rows), files="\n".join(files))


OVERVIEW = """# The API: {{package}}

Everything that a client can ask of a server. These pages are made from the protocol's own files and comments; nothing in
them is written by hand but this page's prose.

| call | | what |
|---|---|---|
{calls}

Beside them on the gRPC port: `grpc.health.v1.Health`, server reflection (`grpc.reflection.v1`, unless `reflection` is
off), and gRPC-Web. Who may call what stands in [security](../security.md#identities), what a refusal says in
[errors](errors.md). How the same messages go over other ways: [WebSocket](../websocket.md),
[JSON over HTTP](../guides/http-json.md), [MCP](../mcp.md).

| file | what |
|---|---|
{files}

## How to read it

- **Nothing set is a default.** In proto3 a number that is not set is 0 and a text is empty; comments say what that means.
  Fields marked `optional` and messages can be told from those that are not set.
- **Times** inside a stream are `Duration`s from its first sample; moments on the wall clock are `Timestamp`s.
- **Units** stand in the name (`_hz`, `_ms`, `_us`, `_dbfs`) or in the comment. Probabilities and shares are 0 to 1.
- **As JSON** names are `lowerCamelCase`, enums are their names, a `Duration` is `"1.500s"`, a `Timestamp` RFC 3339, bytes
  are base64, 64-bit integers are texts: [protobuf's JSON](https://protobuf.dev/programming-guides/json/).
- **Numbers of fields** never change their meaning. New fields and values may come: pass over those that you do not know.
""".replace("{{package}}", PACKAGE)


# --- the program ------------------------------------------------------------------------------


class Program:
    """The binary, asked for its help."""

    def __init__(self, binary):
        self.binary = str(Path(binary).resolve())

    def run(self, *args):
        # Nothing of the environment may show in the help, and no file of settings be found.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("UNDERTONE_", "OTEL_"))
        }
        environment.pop("COLUMNS", None)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [self.binary, *args], capture_output=True, text=True, env=environment, cwd=folder, timeout=60
            )
        if done.returncode != 0:
            raise SystemExit(f"undertone {' '.join(args)} ends with {done.returncode}: {done.stderr}")
        return done.stdout

    def help(self, *command):
        return self.run(*command, "--help")

    def commands(self, *above):
        """All commands below `above`, in the order of the help."""
        text = self.help(*above)
        section = re.search(r"^Commands:\n((?:  .*\n|\n)+)", text, re.MULTILINE)
        names = re.findall(r"^  ([a-z][a-z-]*)(?:  |$)", section[1], re.MULTILINE) if section else []
        for name in names:
            if name != "help":
                yield (*above, name)
                yield from self.commands(*above, name)


def sections(text):
    """The help by its sections: title -> text; what comes first has no title."""
    parts = re.split(r"^(\S[^\n]*):\n(?=  )", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def options(section):
    """Options of a section of the long help: (flags, paragraphs)."""
    found = []
    for block in re.split(r"\n(?= {2,6}-)", "\n" + section.rstrip()):
        if not block.strip():
            continue
        head, _, rest = block.strip("\n").partition("\n")
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", rest) if part.strip()]
        found.append((head.strip(), paragraphs))
    return found


def settings(program):
    """The page of all settings."""
    parts = sections(program.help("serve"))
    defaults = tomllib.loads(program.run("check"))
    rows = []
    for head, paragraphs in options(parts["Settings"]):
        flag = re.search(r"--([a-z0-9-]+)", head)[1]
        if flag == "config":
            continue
        key = "models" if flag == "model" else flag.replace("-", "_")
        env = next(found[1] for part in paragraphs if (found := re.search(r"\[env: (\w+)=?\]", part)))
        what = " ".join(
            part
            for part in paragraphs
            if not re.fullmatch(
                r"(\[env: \w+=?\] ?|\[possible values: .*\] ?|\[default: .*\] ?)+|Possible values: .*", part
            )
        )
        what = re.sub(r" ?\[env: \w+=?\]", "", what)
        what = re.sub(r"(?<=[\w)`>])$", ".", re.sub(r" ?\[default: ([^\]]*)\]$", "", what))
        default = shown(defaults[key])
        unset = next((found[1] for part in paragraphs if (found := re.search(r"\[default: ([^\]]*)\]", part))), None)
        rows.append(
            f"| `{key}` | {unset if unset and default in ('', '`[]`') else default} | {escaped(what)} | `{env}` |"
        )
    return NOTE + SETTINGS.format(rows="\n".join(rows), number=len(rows))


# As the program counts: a month is a twelfth of 365.25 days.
SECONDS = {"months": 2_630_016, "month": 2_630_016, "days": 86_400, "day": 86_400, "h": 3_600, "m": 60, "s": 1}


def shown(value):
    """A setting's default, as in the TOML file; months in whole days where they are some."""
    if isinstance(value, str) and "month" in value:
        seconds = sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([a-z]+)", value))
        value = f"{seconds // 86_400}days" if seconds % 86_400 == 0 else value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.6g}`"
    return f"`{value}`" if value != "" else ""


def escaped(text):
    """A text of the help as Markdown in a table."""
    text = re.sub(r"(?<![`\w])<(https?://[^>]+)>", r"`\1`", text)
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*") if "`" not in text else outside_code(text)


def outside_code(text):
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")
    return "`".join(part.replace("|", r"\|") if index % 2 else part for index, part in enumerate(parts))


SETTINGS = """# Settings

All {number} settings of `undertone serve`, as `undertone serve --help` and `undertone check` give them. Each is

- a **flag**: the key with hyphens, `--max-streams 100`. `models` is the flag `--model DIR`, which may be given several times;
- an **environment variable**, in the last column: `UNDERTONE_MAX_STREAMS=100`;
- a **key of a TOML file** that `--config FILE` or `UNDERTONE_CONFIG` names: `max_streams = 100`.

A flag goes before a variable, a variable before the file, the file before the default. Durations are written `500ms`, `10s`,
`2m`, `1h 30m`, `90days`; sizes are bytes. A setting that cannot be used ends the program with exit code 64 and the
setting's name. `undertone check` says so without serving, and prints what is in force with secrets left out.

Other commands that read a store or load models (`check`, `models`, `escalations`) take the same settings.

| key | default | what | variable |
|---|---|---|---|
{rows}
"""


def command_line(program):
    """The page of all commands."""
    text = program.help()
    lines = ["# The command line", "", *COMMANDS.splitlines(), "", "```text", *stripped(text), "```", ""]
    shared = {head for head, _ in options(sections(program.help("serve"))["Settings"])}
    assert len(shared) > 50
    for command in program.commands():
        name = " ".join(("undertone", *command))
        parts = sections(program.help(*command))
        lines += [f"## {name}", "", "```text"]
        body = []
        for title, part in parts.items():
            if title == "Settings" and {head for head, _ in options(part)} >= shared:
                body += ["Settings:", "  All of `undertone serve`: see the page of settings.", ""]
            else:
                body += [f"{title}:"] if title else []
                body += part.rstrip("\n").split("\n") + [""]
        lines += [*stripped("\n".join(body)), "```", ""]
    return NOTE + "\n".join(lines).rstrip() + "\n"


def stripped(text):
    lines = [line.rstrip() for line in text.strip("\n").split("\n")]
    return [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]


COMMANDS = """What `undertone --help` and each command's `--help` say. All [settings](settings.md) of `undertone serve` stand on a
page of their own.

Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 64 bad configuration, 130 interrupted."""


def pages(binary):
    """Every page: name -> text."""
    protocol = Protocol(descriptors())
    made = {protocol.page(file): Page(protocol, file).text() for file in protocol.files}
    made["api.md"] = overview(protocol)
    if binary:
        program = Program(binary)
        made["settings.md"] = settings(program)
        made["command-line.md"] = command_line(program)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what would change")
    parser.add_argument(
        "--undertone",
        default=os.environ.get("UNDERTONE_BIN"),
        help="the program; without it its pages stay as they are",
    )
    args = parser.parse_args()
    stale = []
    for name, text in pages(args.undertone).items():
        path = OUT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not args.check:
                OUT.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
                print(f"docs/reference/{name}")
    if args.check and stale:
        raise SystemExit(
            f"docs/reference: {', '.join(stale)} is not what docs/reference.py makes; run `make docs-reference`"
        )


if __name__ == "__main__":
    sys.exit(main())
