"""The core without Python: the programs of tests/c, plain and short; their run.sh has sanitizers and full sizes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "c" / "run.sh"
PROTOCOL = Path(__file__).parent.parent / "csrc" / "PROTOCOL.md"
FUZZ = Path(__file__).parent / "fuzz" / "run.sh"

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the C tests with"),
    pytest.mark.timeout(300),
]


def run(part):
    done = subprocess.run([RUN, "--short", "--only", part], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.watchdog(290)
@pytest.mark.parametrize("part", ["unit", "stress", "process", "delay", "model"])
def test_core_holds_on_its_own(part):
    lines = run(part).splitlines()
    assert any(line.startswith("ok ") for line in lines)
    assert not any(line.startswith("FAILED") for line in lines)
    for line in lines:
        if line.startswith("SKIPPED"):
            pytest.skip(line)


@pytest.mark.parametrize("compiler", ["the first clang", "none but gcc"])
def test_byte_ring_and_lanes_hold_for_the_fuzzers_corpus(compiler):
    env = {**os.environ, "CLANG": "/nonexistent/clang"} if compiler == "none but gcc" else None
    done = subprocess.run([FUZZ, "0"], capture_output=True, text=True, timeout=280, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"^ok +(?:operations|hostile|lane): (\d+) inputs$", done.stdout, re.MULTILINE)
    assert len(counts) == 3, done.stdout
    assert min(map(int, counts)) > 100


@pytest.mark.skipif(not PROTOCOL.is_file(), reason="the sources are not here")
def test_protocol_says_who_notices_each_edge_by_models_that_exist():
    text = PROTOCOL.read_text()
    edges, table = set(re.findall(r"\b[A-Z][1-9]\b", text)), text[text.index("## 11. Who notices") :]
    rows = re.findall(r"^\| ([A-Z][1-9](?:, [A-Z][1-9])*) \| (.*) \|$", table, re.MULTILINE)
    assert {edge for row in rows for edge in row[0].split(", ")} == edges
    models = "".join(path.read_text() for path in (RUN.parent / "model").glob("*.c"))
    for name in re.findall(r'"([^"]*)"', "\n".join(row[1] for row in rows)):
        assert name.startswith("...") or f'{{"{name}' in models, name
