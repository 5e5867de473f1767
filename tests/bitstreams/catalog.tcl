# SPDX-License-Identifier: Apache-2.0
# What the stand-in for Vivado knows: parts, strategies, and of every IP its parameters, and the
# interfaces and pins that they make. Written from the product guides (PG021 AXI DMA, PG059 AXI
# Interconnect, PG099 AXI INTC, PG164 Processor System Reset, PG082 and PG201 processing systems).

set parts {
    xc7z020clg400-1 xc7z020clg484-1 xck26-sfvc784-2LV-c xczu1cg-sbva484-1-e xczu3eg-sbva484-1-i
    xczu3eg-sfvc784-1-e xczu3eg-sfvc784-2-e xczu48dr-ffvg1517-2-e xczu5ev-sfvc784-1-e
    xczu7ev-ffvc1156-2-e xczu9eg-ffvb1156-2-e
}
set strategies {
    {Vivado Implementation Defaults} Performance_Explore Performance_ExplorePostRoutePhysOpt
    Performance_ExtraTimingOpt Performance_NetDelay_high Congestion_SpreadLogic_high Area_Explore
}

# Values that parameters take, where it is a choice.
set legal {
    c_include_sg {0 1} c_include_mm2s {0 1} c_include_s2mm {0 1} c_micro_dma {0 1}
    c_include_mm2s_dre {0 1} c_include_s2mm_dre {0 1} c_sg_include_stscntrl_strm {0 1}
    c_sg_length_width {8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26}
    c_m_axi_mm2s_data_width {32 64 128 256 512 1024} c_m_axi_s2mm_data_width {32 64 128 256 512 1024}
    c_m_axis_mm2s_tdata_width {8 16 32 64 128 256 512 1024}
    c_s_axis_s2mm_tdata_width {8 16 32 64 128 256 512 1024}
    c_mm2s_burst_size {2 4 8 16 32 64 128 256} c_s2mm_burst_size {2 4 8 16 32 64 128 256}
    C_IRQ_CONNECTION {0 1}
    PCW_S_AXI_HP0_DATA_WIDTH {32 64} PCW_S_AXI_HP1_DATA_WIDTH {32 64}
    PCW_FCLK0_PERIPHERAL_CLKSRC {{IO PLL} {ARM PLL} {DDR PLL}}
    PCW_UIPARAM_DDR_BUS_WIDTH {{16 Bit} {32 Bit}}
    PSU__MAXIGP0__DATA_WIDTH {32 64 128} PSU__SAXIGP2__DATA_WIDTH {32 64 128}
    PSU__SAXIGP3__DATA_WIDTH {32 64 128}
    PSU__CRL_APB__PL0_REF_CTRL__SRCSEL {IOPLL RPLL DPLL}
}

# IP whose slaves the processor must find.
set addressed {axi_dma 1 axi_intc 1 rowvit_top 1}

proc axi_dma_ports {p} {
    set interfaces {S_AXI_LITE {SLAVE aximm}}
    set pins {s_axi_lite_aclk {I clk} axi_resetn {I rst}}
    if {[dict get $p c_include_sg]} {
        dict set interfaces M_AXI_SG {MASTER aximm}
        dict set pins m_axi_sg_aclk {I clk}
    }
    if {[dict get $p c_include_mm2s]} {
        dict set interfaces M_AXI_MM2S {MASTER aximm}
        dict set interfaces M_AXIS_MM2S {INITIATOR axis}
        dict set pins m_axi_mm2s_aclk {I clk}
        dict set pins mm2s_introut {O data}
        dict set pins mm2s_prmry_reset_out_n {O rst}
    }
    if {[dict get $p c_include_s2mm]} {
        dict set interfaces M_AXI_S2MM {MASTER aximm}
        dict set interfaces S_AXIS_S2MM {TARGET axis}
        dict set pins m_axi_s2mm_aclk {I clk}
        dict set pins s2mm_introut {O data}
        dict set pins s2mm_prmry_reset_out_n {O rst}
    }
    return [list $interfaces $pins]
}

proc axi_interconnect_ports {p} {
    set interfaces {}
    set pins {ACLK {I clk} ARESETN {I rst}}
    foreach {letter count kind} [list S [dict get $p NUM_SI] SLAVE M [dict get $p NUM_MI] MASTER] {
        for {set i 0} {$i < $count} {incr i} {
            set port [format %s%02d $letter $i]
            dict set interfaces ${port}_AXI [list $kind aximm]
            dict set pins ${port}_ACLK {I clk}
            dict set pins ${port}_ARESETN {I rst}
        }
    }
    return [list $interfaces $pins]
}

proc axi_intc_ports {p} {
    set interfaces {s_axi {SLAVE aximm}}
    set pins {s_axi_aclk {I clk} s_axi_aresetn {I rst} intr {I data}}
    if {[dict get $p C_IRQ_CONNECTION]} {
        dict set pins irq {O data}
    } else {
        dict set interfaces interrupt {MASTER mbinterrupt}
    }
    return [list $interfaces $pins]
}

proc xlconcat_ports {p} {
    set pins {dout {O data}}
    for {set i 0} {$i < [dict get $p NUM_PORTS]} {incr i} {
        dict set pins In$i {I data}
    }
    return [list {} $pins]
}

proc proc_sys_reset_ports {p} {
    return {{} {
        slowest_sync_clk {I clk} ext_reset_in {I rst} aux_reset_in {I optional}
        mb_debug_sys_rst {I optional} dcm_locked {I optional}
        mb_reset {O rst_high} bus_struct_reset {O rst_high} peripheral_reset {O rst_high}
        interconnect_aresetn {O rst} peripheral_aresetn {O rst}
    }}
}

proc processing_system7_ports {p} {
    set interfaces {}
    set pins {}
    foreach {parameter name kind} {
        PCW_USE_M_AXI_GP0 M_AXI_GP0 MASTER PCW_USE_M_AXI_GP1 M_AXI_GP1 MASTER
        PCW_USE_S_AXI_HP0 S_AXI_HP0 SLAVE PCW_USE_S_AXI_HP1 S_AXI_HP1 SLAVE
        PCW_USE_S_AXI_HP2 S_AXI_HP2 SLAVE PCW_USE_S_AXI_HP3 S_AXI_HP3 SLAVE
        PCW_USE_S_AXI_GP0 S_AXI_GP0 SLAVE PCW_USE_S_AXI_GP1 S_AXI_GP1 SLAVE
        PCW_USE_S_AXI_ACP S_AXI_ACP SLAVE
    } {
        if {[dict get $p $parameter]} {
            dict set interfaces $name [list $kind aximm]
            dict set pins ${name}_ACLK {I clk}
        }
    }
    if {[dict get $p PCW_EN_CLK0_PORT]} {
        dict set pins FCLK_CLK0 {O clk}
    }
    if {[dict get $p PCW_EN_RST0_PORT]} {
        dict set pins FCLK_RESET0_N {O rst}
    }
    if {[dict get $p PCW_USE_FABRIC_INTERRUPT] && [dict get $p PCW_IRQ_F2P_INTR]} {
        dict set pins IRQ_F2P {I data}
    }
    return [list $interfaces $pins]
}

proc zynq_ultra_ps_e_ports {p} {
    set interfaces {}
    set pins {}
    foreach {parameter name clock kind} {
        PSU__USE__M_AXI_GP0 M_AXI_HPM0_FPD maxihpm0_fpd_aclk MASTER
        PSU__USE__M_AXI_GP1 M_AXI_HPM1_FPD maxihpm1_fpd_aclk MASTER
        PSU__USE__M_AXI_GP2 M_AXI_HPM0_LPD maxihpm0_lpd_aclk MASTER
        PSU__USE__S_AXI_GP0 S_AXI_HPC0_FPD saxihpc0_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP1 S_AXI_HPC1_FPD saxihpc1_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP2 S_AXI_HP0_FPD saxihp0_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP3 S_AXI_HP1_FPD saxihp1_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP4 S_AXI_HP2_FPD saxihp2_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP5 S_AXI_HP3_FPD saxihp3_fpd_aclk SLAVE
        PSU__USE__S_AXI_GP6 S_AXI_LPD saxi_lpd_aclk SLAVE
        PSU__USE__S_AXI_ACP S_AXI_ACP_FPD saxiacp_fpd_aclk SLAVE
        PSU__USE__S_AXI_ACE S_AXI_ACE_FPD sacefpd_aclk SLAVE
    } {
        if {[dict get $p $parameter]} {
            dict set interfaces $name [list $kind aximm]
            dict set pins $clock {I clk}
        }
    }
    if {[dict get $p PSU__FPGA_PL0_ENABLE]} {
        dict set pins pl_clk0 {O clk}
    }
    if {[dict get $p PSU__USE__FABRIC__RST]} {
        dict set pins pl_resetn0 {O rst}
    }
    if {[dict get $p PSU__USE__IRQ0]} {
        dict set pins pl_ps_irq0 {I data}
    }
    return [list $interfaces $pins]
}

set zynq_ultra_parameters {
    PSU__USE__M_AXI_GP0 1 PSU__USE__M_AXI_GP1 1 PSU__USE__M_AXI_GP2 1
    PSU__MAXIGP0__DATA_WIDTH 128 PSU__MAXIGP1__DATA_WIDTH 128 PSU__MAXIGP2__DATA_WIDTH 32
    PSU__USE__S_AXI_GP0 0 PSU__USE__S_AXI_GP1 0 PSU__USE__S_AXI_GP2 0 PSU__USE__S_AXI_GP3 0
    PSU__USE__S_AXI_GP4 0 PSU__USE__S_AXI_GP5 0 PSU__USE__S_AXI_GP6 0 PSU__USE__S_AXI_ACP 0
    PSU__USE__S_AXI_ACE 0 PSU__OVERRIDE__BASIC_CLOCK 0 PSU__FPGA_PL2_ENABLE 0 PSU__FPGA_PL3_ENABLE 0
    PSU__SAXIGP0__DATA_WIDTH 128 PSU__SAXIGP2__DATA_WIDTH 128 PSU__SAXIGP3__DATA_WIDTH 128
    PSU__USE__IRQ0 0 PSU__USE__IRQ1 0 PSU__USE__FABRIC__RST 1 PSU__NUM_FABRIC_RESETS 1
    PSU__FPGA_PL0_ENABLE 1 PSU__FPGA_PL1_ENABLE 0 PSU__PSS_REF_CLK__FREQMHZ 33.333
    PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ 100 PSU__CRL_APB__PL0_REF_CTRL__SRCSEL IOPLL
}

# What presets of boards switch on that a design may not use; the clocks of some are by divisors.
set presets {
    processing_system7 {
        PCW_USE_M_AXI_GP1 1 PCW_USE_S_AXI_GP0 1 PCW_USE_S_AXI_GP1 1 PCW_USE_S_AXI_ACP 1
        PCW_USE_S_AXI_HP2 1 PCW_USE_S_AXI_HP3 1 PCW_EN_CLK1_PORT 1 PCW_FPGA_FCLK1_ENABLE 1
    }
    zynq_ultra_ps_e {
        PSU__USE__S_AXI_GP0 1 PSU__USE__S_AXI_GP1 1 PSU__USE__S_AXI_GP4 1 PSU__USE__S_AXI_GP5 1
        PSU__USE__S_AXI_GP6 1 PSU__USE__S_AXI_ACP 1 PSU__USE__S_AXI_ACE 1 PSU__FPGA_PL1_ENABLE 1
        PSU__OVERRIDE__BASIC_CLOCK 1
    }
}

# IP: parameters with their defaults, procedure for the ports; window of addresses of a processor
set catalog [dict create \
    xilinx.com:ip:processing_system7:5.5 [dict create ports processing_system7_ports \
        window {0x40000000 0x7FFFFFFF} parameters {
            PCW_USE_M_AXI_GP0 0 PCW_USE_M_AXI_GP1 0 PCW_USE_S_AXI_HP0 0 PCW_USE_S_AXI_HP1 0
            PCW_USE_S_AXI_HP2 0 PCW_USE_S_AXI_HP3 0 PCW_S_AXI_HP0_DATA_WIDTH 64
            PCW_S_AXI_HP1_DATA_WIDTH 64 PCW_USE_FABRIC_INTERRUPT 0 PCW_IRQ_F2P_INTR 0
            PCW_USE_S_AXI_GP0 0 PCW_USE_S_AXI_GP1 0 PCW_USE_S_AXI_ACP 0
            PCW_EN_CLK0_PORT 1 PCW_EN_CLK1_PORT 0 PCW_EN_CLK2_PORT 0 PCW_EN_CLK3_PORT 0
            PCW_EN_RST0_PORT 1 PCW_FPGA_FCLK0_ENABLE 1 PCW_FPGA_FCLK1_ENABLE 0
            PCW_FPGA_FCLK2_ENABLE 0 PCW_FPGA_FCLK3_ENABLE 0
            PCW_FPGA0_PERIPHERAL_FREQMHZ 50 PCW_FCLK0_PERIPHERAL_CLKSRC {IO PLL}
            PCW_CRYSTAL_PERIPHERAL_FREQMHZ 33.333333 PCW_APU_PERIPHERAL_FREQMHZ 666.666666
            PCW_PRESET_BANK0_VOLTAGE {LVCMOS 3.3V} PCW_PRESET_BANK1_VOLTAGE {LVCMOS 3.3V}
            PCW_UIPARAM_DDR_FREQ_MHZ 533.333333 PCW_UIPARAM_DDR_BUS_WIDTH {32 Bit}
            PCW_UIPARAM_DDR_PARTNO Custom PCW_ENET0_PERIPHERAL_ENABLE 0
            PCW_ENET0_ENET0_IO <Select> PCW_ENET0_PERIPHERAL_FREQMHZ {1000 Mbps}
        }] \
    xilinx.com:ip:zynq_ultra_ps_e:3.4 [dict create ports zynq_ultra_ps_e_ports \
        window {0xA0000000 0xAFFFFFFF} parameters $zynq_ultra_parameters] \
    xilinx.com:ip:zynq_ultra_ps_e:3.5 [dict create ports zynq_ultra_ps_e_ports \
        window {0xA0000000 0xAFFFFFFF} parameters $zynq_ultra_parameters] \
    xilinx.com:ip:axi_dma:7.1 [dict create ports axi_dma_ports parameters {
        c_include_sg 1 c_enable_multi_channel 0 c_sg_include_stscntrl_strm 1 c_sg_use_stsapp_length 0
        c_sg_length_width 14 c_micro_dma 0 c_addr_width 32 c_prmry_is_aclk_async 0
        c_include_mm2s 1 c_include_mm2s_sf 1 c_include_mm2s_dre 0 c_mm2s_burst_size 16
        c_m_axi_mm2s_data_width 32 c_m_axis_mm2s_tdata_width 32 c_num_mm2s_channels 1
        c_include_s2mm 1 c_include_s2mm_sf 1 c_include_s2mm_dre 0 c_s2mm_burst_size 16
        c_m_axi_s2mm_data_width 32 c_s_axis_s2mm_tdata_width 32 c_num_s2mm_channels 1
        c_increase_throughput 0 c_single_interface 0 c_dlytmr_resolution 125
    }] \
    xilinx.com:ip:axi_interconnect:2.0 [dict create ports axi_interconnect_ports \
        parameters {NUM_SI 1 NUM_MI 2}] \
    xilinx.com:ip:axi_interconnect:2.1 [dict create ports axi_interconnect_ports \
        parameters {NUM_SI 1 NUM_MI 2 STRATEGY 0 ENABLE_ADVANCED_OPTIONS 0}] \
    xilinx.com:ip:axi_intc:4.1 [dict create ports axi_intc_ports parameters {
        C_IRQ_CONNECTION 0 C_KIND_OF_INTR 0xFFFFFFFF C_KIND_OF_EDGE 0xFFFFFFFF
        C_KIND_OF_LVL 0xFFFFFFFF C_ASYNC_INTR 0xFFFFFFFF C_IRQ_IS_LEVEL 1 C_IRQ_ACTIVE 0x1
        C_HAS_FAST 0 C_NUM_SW_INTR 0
    }] \
    xilinx.com:ip:xlconcat:2.1 [dict create ports xlconcat_ports \
        parameters {NUM_PORTS 2 IN0_WIDTH 1 IN1_WIDTH 1}] \
    xilinx.com:ip:proc_sys_reset:5.0 [dict create ports proc_sys_reset_ports \
        parameters {C_EXT_RESET_HIGH 0 C_AUX_RESET_HIGH 0 C_EXT_RST_WIDTH 4}] \
]

set utilisation_report {
1. Slice Logic
--------------

+----------------------------+-------+-------+------------+-----------+-------+
|          Site Type         |  Used | Fixed | Prohibited | Available | Util% |
+----------------------------+-------+-------+------------+-----------+-------+
| Slice LUTs                 | 31250 |     0 |          0 |     53200 | 58.74 |
|   LUT as Logic             | 29100 |     0 |          0 |     53200 | 54.70 |
|   LUT as Memory            |  2150 |     0 |          0 |     17400 | 12.36 |
| Slice Registers            | 28777 |     0 |          0 |    106400 | 27.05 |
+----------------------------+-------+-------+------------+-----------+-------+

2. Memory
---------

+-------------------+-------+-------+------------+-----------+-------+
|     Site Type     |  Used | Fixed | Prohibited | Available | Util% |
+-------------------+-------+-------+------------+-----------+-------+
| Block RAM Tile    | 121.5 |     0 |          0 |       140 | 86.79 |
|   RAMB36/FIFO*    |   118 |     0 |          0 |       140 | 84.29 |
+-------------------+-------+-------+------------+-----------+-------+

3. DSP
------

+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           |  198 |     0 |          0 |       220 | 90.00 |
|   DSP48E1 only |  198 |       |            |           |       |
+----------------+------+-------+------------+-----------+-------+
}
