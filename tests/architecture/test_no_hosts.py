"""No file names a package index or a folder of somebody's machine: users install from their own mirrors."""

import re

from tests.architecture.files import ROOT, project_files

# In pieces, so that this file does not contain what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        [
            "pypi" + r"\.org",
            "python" + "hosted",
            "download" + r"\.pytorch",
            r"(?<![\w.{}$-])/(?:work|opt|root)/",
            r"(?<![\w.{}$-])/(?:home|Users)/\w",
            r"\.\./" + "shared",
        ]
    )
)


def test_no_file_names_an_index_or_a_machine_path() -> None:
    found = []
    for path in project_files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue  # not text
        lines = enumerate(text.splitlines(), 1)
        found += [f"{path}:{number}: {line[:100]}" for number, line in lines if FORBIDDEN.search(line)]
    assert found == []
