"""Tables of what several interpreters found, in one JSON file each."""

import json
from pathlib import Path
from typing import Any

import bars


def keep(file: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of this interpreter there, in the place of its earlier ones."""
    path = Path(file)
    before = json.loads(path.read_text()) if path.exists() else []
    table = [row for row in before if row["python"] != bars.python_here()]
    table += [{"python": bars.python_here(), **row} for row in rows]
    path.write_text("[\n" + ",\n".join(map(json.dumps, table)) + "\n]\n")
