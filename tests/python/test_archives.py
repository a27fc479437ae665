"""The tables of `undertone analyze --output`, read by DuckDB: what docs/archives.md says of them, and its queries. The
real binary's path is in the environment variable UNDERTONE_BIN."""

import os
import pathlib
import re
import shutil
import subprocess

import duckdb
import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = (ROOT / "docs/archives.md").read_text(encoding="utf-8")
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `results` of three recordings, one of which is none, by two shards."""
    binary = os.environ.get("UNDERTONE_BIN")
    assert binary, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone"
    folder = tmp_path_factory.mktemp("archive")
    (folder / "calls").mkdir()
    for name in ("one.wav", "two.wav"):
        shutil.copy(ROOT / "tests/data/hello.wav", folder / "calls" / name)
    (folder / "calls/text.wav").write_text("It was a dark and stormy night.", encoding="utf-8")
    for shard in ("0/2", "1/2"):
        done = subprocess.run(
            [binary, "analyze", "calls", "--output", "results", "--shard", shard, "--allow-failures", "1"],
            cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def database(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with duckdb.connect() as database:
        yield database


def documented(table):
    """The columns of a table: name -> type."""
    section = DOCS.split(f"## `{table}`")[1].split("\n#")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))


@pytest.mark.parametrize("table", ["clips", "utterances"])
def test_columns_have_the_documented_names_and_types(database, table):
    described = database.sql(f"describe select * from 'results/{table}/*.parquet'").fetchall()
    types = {name: kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for name, kind, *_ in described}
    assert types == documented(table)


def test_files_say_what_they_are(database):
    notes = database.sql("""
        select file_name, decode(key), decode(value) from parquet_kv_metadata('results/*/*.parquet')
    """).fetchall()
    by_file = {}
    for name, key, value in notes:
        by_file.setdefault(name, {})[key] = value
    # Which shard a recording is in depends on where the test's folder is.
    assert len(by_file) == len(list(pathlib.Path("results").glob("*/*.parquet"))) >= 2
    for name, said in by_file.items():
        assert said["undertone.schema"] == "1"
        assert f"results/{said['undertone.table']}/" in name
        assert said["undertone.model.name"] == "undertone-four"
        assert len(said["undertone.model.sha256"]) == 64


def test_rows_hold_what_they_should(database):
    clips = database.sql("""
        select parse_filename(path), error_code, seconds, utterances, emotion,
            p_neutral + p_calm + p_happy + p_sad + p_angry + p_fear + p_disgust + p_surprise,
            last_modified <= analyzed_at and analyzed_at <= now()
        from 'results/clips/*.parquet' order by path
    """).fetchall()
    assert [row[0] for row in clips] == ["one.wav", "text.wav", "two.wav"]
    assert clips[1][1:6] == ("unsupported", None, None, None, None)
    for row in (clips[0], clips[2]):
        assert row[1] is None and row[2] > 1 and row[3] > 0 and row[4] is not None
        assert abs(row[5] - 1) < 1e-4
    assert all(row[6] for row in clips)
    count = database.execute("select count(*) from 'results/utterances/*.parquet'").fetchone()[0]
    assert count == sum(row[3] or 0 for row in clips)


def test_the_documented_queries_work(database):
    statements = [
        re.sub(r"^--.*$", "", statement, flags=re.MULTILINE).strip()
        for block in re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)
        for statement in block.split(";")
    ]
    statements = [statement for statement in statements if statement]
    assert len(statements) == 5
    for statement in statements:
        database.execute(statement)
    assert database.execute("select count(*) from clips").fetchone() == (3,)
    assert database.execute("select count(*) from utterances").fetchone()[0] > 0
    database.execute("copy (from clips order by path) to 'clips.parquet'")


def test_the_documented_shard_is_the_one(database):
    (line,) = re.findall(r"```python\n(shard = .*?)```", DOCS, re.DOTALL)
    for name, path in database.sql("select filename, path from read_parquet('results/clips/*', filename = true)").fetchall():
        known = {"path": path, "n": 2}
        exec("import hashlib\n" + line, known)
        assert f"part-{known['shard']:05}-of-00002-" in name
