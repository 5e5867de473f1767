# SPDX-License-Identifier: Apache-2.0
"""``python -m rowvit``, where the command is not on the PATH."""

from rowvit.cli import app

app(prog_name="rowvit")
