// SPDX-License-Identifier: Apache-2.0
// AXI boundary of the accelerator and nothing else: AXI4-Lite registers, AXI4 read master,
// AXI4-Stream in (patches) and out (records), interrupt; the attributes tell Vivado's block designs so
// (UG994). Adds no cycle.
`default_nettype none
module rowvit_top #(
    // First 32 bits of the configuration's SHA-256.
    parameter [31:0] CONFIG_HASH = 32'h0,
    // Token rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 1,
    // Lanes of a group: multipliers per row and group.
    parameter LANES = 16,
    // Lines of LANES bytes per group.
    parameter WEIGHT_DEPTH = 512,
    // 64-bit words per row.
    parameter TOKEN_DEPTH = 2048,
    // int16 per row and group.
    parameter RESIDUAL_DEPTH = 1024,
    // Tokens of an image, at most.
    parameter MAX_TOKENS = 64,
    // Channels, at most.
    parameter MAX_DIM = 256,
    // Lane tiles whose biases and multipliers are held.
    parameter PARAM_SLOTS = 4,
    // Parameter sets of LayerNorm.
    parameter NORM_SLOTS = 2,
    // Words of LANES bits.
    parameter MASK_DEPTH = 64,
    // Width of m_axi: 64 or 128.
    parameter PORT_BITS = 64,
    // Rows of tokens whose rotary positions are held; 0: none.
    parameter ROTARY_TOKENS = 64,
    // 1: DSP48E1 primitives, 0: their behavioural twin.
    parameter USE_DSP = 0,
    // Of token and residual memory: "auto", "block", or "ultra" for UltraRAM.
    parameter RAM_STYLE = "auto"
) (
    (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axil:m_axi:s_axis:m_axis, ASSOCIATED_RESET aresetn" *)
    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *) input wire aclk,
    (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)
    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *) input wire aresetn,

    (* X_INTERFACE_PARAMETER = "PROTOCOL AXI4LITE" *)
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWADDR" *) input wire [11:0] s_axil_awaddr,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWVALID" *) input wire s_axil_awvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWREADY" *) output wire s_axil_awready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WDATA" *) input wire [31:0] s_axil_wdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WSTRB" *) input wire [3:0]  s_axil_wstrb,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WVALID" *) input wire s_axil_wvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WREADY" *) output wire s_axil_wready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BRESP" *) output wire [1:0]  s_axil_bresp,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BVALID" *) output wire s_axil_bvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BREADY" *) input wire s_axil_bready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARADDR" *) input wire [11:0] s_axil_araddr,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARVALID" *) input wire s_axil_arvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARREADY" *) output wire s_axil_arready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RDATA" *) output wire [31:0] s_axil_rdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RRESP" *) output wire [1:0]  s_axil_rresp,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RVALID" *) output wire s_axil_rvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RREADY" *) input wire s_axil_rready,

    // verilog_lint: waive-next-line line-length
    (* X_INTERFACE_PARAMETER = "PROTOCOL AXI4, READ_WRITE_MODE READ_ONLY, MAX_BURST_LENGTH 16, NUM_READ_OUTSTANDING 8, SUPPORTS_NARROW_BURST 0" *)
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARADDR" *) output wire [63:0] m_axi_araddr,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARLEN" *) output wire [7:0]  m_axi_arlen,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARSIZE" *) output wire [2:0]  m_axi_arsize,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARBURST" *) output wire [1:0]  m_axi_arburst,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARCACHE" *) output wire [3:0]  m_axi_arcache,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARPROT" *) output wire [2:0]  m_axi_arprot,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARVALID" *) output wire m_axi_arvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi ARREADY" *) input wire m_axi_arready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi RDATA" *)
    input wire [PORT_BITS-1:0] m_axi_rdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi RRESP" *) input wire [1:0]  m_axi_rresp,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi RLAST" *) input wire m_axi_rlast,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi RVALID" *) input wire m_axi_rvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi RREADY" *) output wire m_axi_rready,

    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis TDATA" *) input wire [63:0] s_axis_tdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis TVALID" *) input wire s_axis_tvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis TREADY" *) output wire s_axis_tready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis TLAST" *) input wire s_axis_tlast,

    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis TDATA" *) output wire [63:0] m_axis_tdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis TKEEP" *) output wire [7:0]  m_axis_tkeep,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis TVALID" *) output wire m_axis_tvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis TREADY" *) input wire m_axis_tready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis TLAST" *) output wire m_axis_tlast,

    (* X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)
    (* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT" *) output wire irq
);
  `include "rowvit_defs.vh"
  wire         start, reset, busy, pass_done, error_valid;
  wire [63:0]  base;
  wire [31:0]  program_offset, length, watchdog;
  wire [15:0]  passes, live;
  wire [7:0]   error_code;
  wire [23:0]  error_info;
  wire [16*N_ENGINE-1:0]  done;
  wire [32*N_COUNTER-1:0] counters;
  rowvit_axil_regs #(
      .CONFIG_HASH(CONFIG_HASH), .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_regs (
      .clk_i(aclk), .rst_ni(aresetn),
      .s_axil_awaddr(s_axil_awaddr), .s_axil_awvalid(s_axil_awvalid),
      .s_axil_awready(s_axil_awready), .s_axil_wdata(s_axil_wdata), .s_axil_wstrb(s_axil_wstrb),
      .s_axil_wvalid(s_axil_wvalid), .s_axil_wready(s_axil_wready), .s_axil_bresp(s_axil_bresp),
      .s_axil_bvalid(s_axil_bvalid), .s_axil_bready(s_axil_bready),
      .s_axil_araddr(s_axil_araddr), .s_axil_arvalid(s_axil_arvalid),
      .s_axil_arready(s_axil_arready), .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp),
      .s_axil_rvalid(s_axil_rvalid), .s_axil_rready(s_axil_rready),
      .start_o(start), .reset_o(reset), .base_o(base), .program_o(program_offset),
      .length_o(length), .passes_o(passes), .watchdog_o(watchdog), .irq_o(irq),
      .busy_i(busy), .pass_done_i(pass_done), .error_valid_i(error_valid),
      .error_code_i(error_code), .error_info_i(error_info), .done_i(done), .live_i(live),
      .counters_i(counters)
  );

  wire         req0_valid, req0_ready, rsp0_valid, rsp0_ready;
  wire         req1_valid, req1_ready, rsp1_valid, rsp1_ready;
  wire [63:0]  req0_addr, req1_addr;
  wire [PORT_BITS-1:0] rsp0_data, rsp1_data;
  wire [31:0]  req0_bytes, req1_bytes;
  wire         reader_clear, reader_busy, reader_beat, reader_error;
  rowvit_axi_reader #(
      .WIDTH(PORT_BITS), .OUTSTANDING(BURSTS), .DEPTH0(PROGRAM_FIFO), .DEPTH1(LOAD_FIFO)
  ) u_reader (
      .clk_i(aclk), .rst_ni(aresetn), .clear_i(reader_clear),
      .req0_valid_i(req0_valid), .req0_ready_o(req0_ready), .req0_addr_i(req0_addr),
      .req0_bytes_i(req0_bytes), .rsp0_valid_o(rsp0_valid), .rsp0_ready_i(rsp0_ready),
      .rsp0_data_o(rsp0_data),
      .req1_valid_i(req1_valid), .req1_ready_o(req1_ready), .req1_addr_i(req1_addr),
      .req1_bytes_i(req1_bytes), .rsp1_valid_o(rsp1_valid), .rsp1_ready_i(rsp1_ready),
      .rsp1_data_o(rsp1_data),
      .m_axi_araddr(m_axi_araddr), .m_axi_arlen(m_axi_arlen), .m_axi_arsize(m_axi_arsize),
      .m_axi_arburst(m_axi_arburst), .m_axi_arcache(m_axi_arcache), .m_axi_arprot(m_axi_arprot),
      .m_axi_arvalid(m_axi_arvalid), .m_axi_arready(m_axi_arready), .m_axi_rdata(m_axi_rdata),
      .m_axi_rresp(m_axi_rresp), .m_axi_rlast(m_axi_rlast), .m_axi_rvalid(m_axi_rvalid),
      .m_axi_rready(m_axi_rready),
      .busy_o(reader_busy), .beat_o(reader_beat), .error_o(reader_error)
  );

  rowvit_core #(
      .CONFIG_HASH(CONFIG_HASH), .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES),
      .WEIGHT_DEPTH(WEIGHT_DEPTH), .TOKEN_DEPTH(TOKEN_DEPTH), .RESIDUAL_DEPTH(RESIDUAL_DEPTH),
      .MAX_TOKENS(MAX_TOKENS), .MAX_DIM(MAX_DIM), .PARAM_SLOTS(PARAM_SLOTS),
      .NORM_SLOTS(NORM_SLOTS), .MASK_DEPTH(MASK_DEPTH), .PORT_BITS(PORT_BITS),
      .ROTARY_TOKENS(ROTARY_TOKENS), .USE_DSP(USE_DSP), .RAM_STYLE(RAM_STYLE)
  ) u_core (
      .clk_i(aclk), .rst_ni(aresetn), .start_i(start), .reset_i(reset), .base_i(base),
      .program_i(program_offset), .length_i(length), .passes_i(passes), .watchdog_i(watchdog),
      .busy_o(busy), .pass_done_o(pass_done), .error_valid_o(error_valid),
      .error_code_o(error_code), .error_info_o(error_info), .done_o(done), .live_o(live),
      .counters_o(counters),
      .req0_valid_o(req0_valid), .req0_ready_i(req0_ready), .req0_addr_o(req0_addr),
      .req0_bytes_o(req0_bytes), .rsp0_valid_i(rsp0_valid), .rsp0_ready_o(rsp0_ready),
      .rsp0_data_i(rsp0_data),
      .req1_valid_o(req1_valid), .req1_ready_i(req1_ready), .req1_addr_o(req1_addr),
      .req1_bytes_o(req1_bytes), .rsp1_valid_i(rsp1_valid), .rsp1_ready_o(rsp1_ready),
      .rsp1_data_i(rsp1_data),
      .reader_busy_i(reader_busy), .reader_beat_i(reader_beat), .reader_error_i(reader_error),
      .reader_clear_o(reader_clear),
      .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
      .s_axis_tlast(s_axis_tlast),
      .m_axis_tdata(m_axis_tdata), .m_axis_tkeep(m_axis_tkeep), .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready), .m_axis_tlast(m_axis_tlast)
  );
endmodule
`default_nettype wire
