// SPDX-License-Identifier: Apache-2.0
// AXI boundary of the accelerator and nothing else: AXI4-Lite registers, AXI4 read master,
// AXI4-Stream in (patches) and out (records), interrupt. Adds no cycle; resources: rowvit_core and its parts.
`default_nettype none
module rowvit_top #(
    parameter [31:0] CONFIG_HASH = 32'h0,  // first 32 bits of the configuration's SHA-256
    parameter ROWS = 2,               // token rows per band
    parameter GROUPS = 1,             // lane groups
    parameter LANES = 16,             // multipliers per row and group
    parameter WEIGHT_DEPTH = 512,     // lines of LANES bytes per group
    parameter TOKEN_DEPTH = 2048,     // 64-bit words per row
    parameter RESIDUAL_DEPTH = 1024,  // int16 per row and group
    parameter MAX_TOKENS = 64,
    parameter MAX_DIM = 256,          // channels
    parameter PARAM_SLOTS = 4,        // lane tiles whose biases and multipliers are held
    parameter NORM_SLOTS = 2,         // parameter sets of LayerNorm
    parameter MASK_DEPTH = 64,        // words of LANES bits
    parameter USE_DSP = 0,            // 1: DSP48E1 primitives, 0: their behavioural twin
    parameter RAM_STYLE = "auto"      // of token and residual memory: "ultra" for UltraRAM
) (
    input  wire        aclk,
    input  wire        aresetn,

    input  wire [11:0] s_axil_awaddr,
    input  wire        s_axil_awvalid,
    output wire        s_axil_awready,
    input  wire [31:0] s_axil_wdata,
    input  wire [3:0]  s_axil_wstrb,
    input  wire        s_axil_wvalid,
    output wire        s_axil_wready,
    output wire [1:0]  s_axil_bresp,
    output wire        s_axil_bvalid,
    input  wire        s_axil_bready,
    input  wire [11:0] s_axil_araddr,
    input  wire        s_axil_arvalid,
    output wire        s_axil_arready,
    output wire [31:0] s_axil_rdata,
    output wire [1:0]  s_axil_rresp,
    output wire        s_axil_rvalid,
    input  wire        s_axil_rready,

    output wire [63:0] m_axi_araddr,
    output wire [7:0]  m_axi_arlen,
    output wire [2:0]  m_axi_arsize,
    output wire [1:0]  m_axi_arburst,
    output wire [3:0]  m_axi_arcache,
    output wire [2:0]  m_axi_arprot,
    output wire        m_axi_arvalid,
    input  wire        m_axi_arready,
    input  wire [63:0] m_axi_rdata,
    input  wire [1:0]  m_axi_rresp,
    input  wire        m_axi_rlast,
    input  wire        m_axi_rvalid,
    output wire        m_axi_rready,

    input  wire [63:0] s_axis_tdata,
    input  wire        s_axis_tvalid,
    output wire        s_axis_tready,
    input  wire        s_axis_tlast,

    output wire [63:0] m_axis_tdata,
    output wire [7:0]  m_axis_tkeep,
    output wire        m_axis_tvalid,
    input  wire        m_axis_tready,
    output wire        m_axis_tlast,

    output wire        irq
);
  `include "rowvit_defs.vh"
  wire         start, reset, busy, image_done, error_valid;
  wire [63:0]  base;
  wire [31:0]  program_offset, length, watchdog;
  wire [15:0]  images, live;
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
      .length_o(length), .images_o(images), .watchdog_o(watchdog), .irq_o(irq),
      .busy_i(busy), .image_done_i(image_done), .error_valid_i(error_valid),
      .error_code_i(error_code), .error_info_i(error_info), .done_i(done), .live_i(live),
      .counters_i(counters)
  );

  wire         req0_valid, req0_ready, rsp0_valid, rsp0_ready;
  wire         req1_valid, req1_ready, rsp1_valid, rsp1_ready;
  wire [63:0]  req0_addr, req1_addr, rsp0_data, rsp1_data;
  wire [31:0]  req0_bytes, req1_bytes;
  wire         reader_clear, reader_busy, reader_beat, reader_error;
  rowvit_axi_reader #(
      .OUTSTANDING(BURSTS), .DEPTH0(PROGRAM_FIFO), .DEPTH1(LOAD_FIFO)
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
      .NORM_SLOTS(NORM_SLOTS), .MASK_DEPTH(MASK_DEPTH), .USE_DSP(USE_DSP),
      .RAM_STYLE(RAM_STYLE)
  ) u_core (
      .clk_i(aclk), .rst_ni(aresetn), .start_i(start), .reset_i(reset), .base_i(base),
      .program_i(program_offset), .length_i(length), .images_i(images), .watchdog_i(watchdog),
      .busy_o(busy), .image_done_o(image_done), .error_valid_o(error_valid),
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
