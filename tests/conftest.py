# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

import rowvit
from rowvit.sim.verilate import RTL

# a test compiles what it runs, with the compiler as it is; the cache has tests of its own
os.environ["ROWVIT_CACHE_PROGRAMS"] = "0"
# processes that tests start take the same copy of the package
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(rowvit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# what a shell or a board's image sets, on which no result may depend
for name in ("BOARD", "ROWVIT_BOARDS", "ROWVIT_TOKEN", "CXX", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)
for name in ("http_proxy", "https_proxy", "all_proxy"):  # a browser, curl and clients of this machine
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# the same examples in every run, whatever another has found, and no limits of time: a machine may be busy;
# tests say for themselves how many
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("fixed")
# --hypothesis-profile first: the first example that fails is enough
settings.register_profile("first", phases=[Phase.explicit, Phase.generate])
# --hypothesis-profile random --hypothesis-seed N: others for every seed
settings.register_profile("random", derandomize=False)


#: why tests may be skipped where CI is set, too: what is not to be had by an installation there
ABSENT = (
    "needs Python 3",
    "needs root",
    "no network namespace here",
    "recorded with",
    "the limits are for Yosys",
    "this transformers has no",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A check that does not run is no check: where CI is set, a tool that is missing is a failure."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ABSENT):
            report.outcome, report.longrepr = "failed", f"skipped where CI is set: {reason}"
    return report


pytest_make_collect_report = pytest_runtest_makereport  # of whole files


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test and its fixtures draw from the libraries' own generators is the same in every run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> Path:
    """The RTL with `host/standin/rowvit_core.v` for its core, which loops back and replays."""
    rtl = tmp_path_factory.mktemp("standin") / "rtl"
    shutil.copytree(RTL, rtl)
    shutil.copy(Path(__file__).parent / "host" / "standin" / "rowvit_core.v", rtl)
    return rtl
