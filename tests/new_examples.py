# SPDX-License-Identifier: Apache-2.0
"""Property-based tests on new examples for an hour: `make test RANDOM=1`.

Every round takes another seed. The first failure ends it, and the command is printed that repeats it.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
import sys
import time

SECONDS = 3600


def main() -> int:
    """Rounds until the hour is over; the exit code of the last."""
    rounds, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        seed = secrets.randbits(32)
        examples = ["--hypothesis-profile", "random", "--hypothesis-seed", str(seed)]
        tests = ["-m", "hypothesis and not slow", "-n", "2", "-x", "-q"]
        command = [sys.executable, "-m", "pytest", *tests, *examples]
        if code := subprocess.run(command).returncode:
            print(f"new examples fail; again: {shlex.join(command)}", file=sys.stderr)
            return code
        rounds += 1
    print(f"{rounds} rounds of new examples, none fails")
    return 0


if __name__ == "__main__":
    sys.exit(main())
