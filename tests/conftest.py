# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from rowvit.sim.verilate import RTL

# no deadline for an example, as a shared machine may be slow; all else as Hypothesis has it, here or on CI
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# --hypothesis-profile first: the first example that fails is enough
settings.register_profile("first", phases=[Phase.explicit, Phase.generate])


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> Path:
    """The RTL with `host/standin/rowvit_core.v` for its core, which loops back and replays."""
    rtl = tmp_path_factory.mktemp("standin") / "rtl"
    shutil.copytree(RTL, rtl)
    shutil.copy(Path(__file__).parent / "host" / "standin" / "rowvit_core.v", rtl)
    return rtl
