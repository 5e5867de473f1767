# SPDX-License-Identifier: Apache-2.0
"""Handoffs that Vivado wrote (pynqmetadata brings two) are read as PYNQ reads them."""

from __future__ import annotations

from pathlib import Path

import pynqmetadata
import pytest
from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
from pynqmetadata.frontends import Metadata

from rowvit.errors import RowvitError
from rowvit.overlay.bitfile import Handoff

FILES = Path(pynqmetadata.__file__).parent / "tests" / "hwhs"


@pytest.mark.parametrize("name", ["resizer", "rfsoc_sam"])
def test_addresses_and_parameters(name):
    path = FILES / f"{name}.hwh"
    handoff, known = Handoff(path), RuntimeMetadataParser(Metadata(input=str(path))).ip_dict
    slaves = {name: ip for name, ip in known.items() if "phys_addr" in ip}
    assert len(slaves) > 1
    for name, ip in slaves.items():
        block = handoff.blocks[name]
        assert (block.type, block.base, block.size) == (ip["type"], ip["phys_addr"], ip["addr_range"])
        shared = [key for key in ip["parameters"] if key.lower() in block.parameters]  # PYNQ adds some
        assert len(shared) > 2
        for key in shared:
            assert block.parameters[key.lower()] == str(ip["parameters"][key])


def test_a_zynq_7000():
    """PYNQ's resizer for the Pynq-Z1: an HLS kernel between the channels of a DMA."""
    handoff = Handoff(FILES / "resizer.hwh")
    assert handoff.tool == "2019.2"
    assert handoff.part == "7z020clg400"
    assert handoff.zynq_7000
    assert handoff.frontend == "host"  # that kernel is not ours
    dma = handoff.blocks["axi_dma_0"]
    assert dma.type == "xilinx.com:ip:axi_dma:7.1"
    assert dma.number("c_sg_length_width") == 26
    assert (dma.clock_mhz, dma.clock_source) == (100, "processing_system7_0/FCLK_CLK0")
    assert dma.memories == {"M_AXI_MM2S": "S_AXI_HP0", "M_AXI_S2MM": "S_AXI_HP0"}
    with pytest.raises(RowvitError, match="no rowvit core"):
        handoff.core  # noqa: B018


def test_an_ultrascale():
    handoff = Handoff(FILES / "rfsoc_sam.hwh")
    assert not handoff.zynq_7000
    assert handoff.processor.type.split(":")[2] == "zynq_ultra_ps_e"
