# SPDX-License-Identifier: Apache-2.0
"""What is skipped for a missing tool fails where CI is set (conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG

HERE = Path(__file__).parent
SKIPS = {
    "a test": "import pytest\ndef test(): pytest.skip('needs a tool')",
    "a mark": "import pytest\n@pytest.mark.skipif(True, reason='needs a tool')\ndef test(): ...",
    "a fixture": "import pytest\n@pytest.fixture\ndef t(): pytest.skip('needs a tool')\ndef test(t): ...",
    "a file": "import pytest\npytest.importorskip('no_such_package')\ndef test(): ...",
}


@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS)
def test_a_missing_tool(tmp_path: Path, text: str) -> None:
    assert outcome(tmp_path, text, CI="")[1] == "1 skipped"
    code, summary = outcome(tmp_path, text, CI="1")
    assert code and ("1 failed" in summary or "1 error" in summary)


def test_what_no_machine_has_for_all(tmp_path: Path) -> None:
    text = "import pytest\ndef test(): pytest.skip('needs Python 3.10')"
    assert outcome(tmp_path, text, CI="1") == (0, "1 skipped")


def outcome(folder: Path, text: str, **environment: str) -> tuple[int, str]:
    """Exit code and summary of pytest on one file, with our conftest."""
    (folder / "test_it.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", folder],
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent / 'host'}", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    return done.returncode, done.stdout.strip().splitlines()[-1].rpartition(" in ")[0].strip("= ")
