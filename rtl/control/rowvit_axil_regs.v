// SPDX-License-Identifier: Apache-2.0
// Registers of the core behind an AXI4-Lite slave: identity, configuration, status, interrupts.
// Writes honour byte strobes; unknown addresses read as 0 and ignore writes; every response is OKAY.
// While the core is busy, start and writes of what it runs (BASE to WATCHDOG) are ignored;
// start also after an error, which stays until a core reset.
// Throughput: a read every 2 cycles, a write every 2 cycles. Latency: 1 cycle.
`default_nettype none

module rowvit_axil_regs #(
    // First 32 bits of the configuration's SHA-256.
    parameter [31:0] CONFIG_HASH = 32'h0,
    // Token rows of a band, as the host reads them; so below.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 1,
    // Lanes of a group.
    parameter LANES = 16
) (
    input  wire         clk_i,
    input  wire         rst_ni,

    input  wire [11:0]  s_axil_awaddr,
    input  wire         s_axil_awvalid,
    output wire         s_axil_awready,
    input  wire [31:0]  s_axil_wdata,
    input  wire [3:0]   s_axil_wstrb,
    input  wire         s_axil_wvalid,
    output wire         s_axil_wready,
    output wire [1:0]   s_axil_bresp,
    output wire         s_axil_bvalid,
    input  wire         s_axil_bready,
    input  wire [11:0]  s_axil_araddr,
    input  wire         s_axil_arvalid,
    output wire         s_axil_arready,
    output wire [31:0]  s_axil_rdata,
    output wire [1:0]   s_axil_rresp,
    output wire         s_axil_rvalid,
    input  wire         s_axil_rready,

    // One-cycle pulses.
    output wire         start_o,
    output wire         reset_o,
    output wire [63:0]  base_o,
    output wire [31:0]  program_o,
    output wire [31:0]  length_o,
    output wire [15:0]  passes_o,
    output wire [31:0]  watchdog_o,
    output wire         irq_o,

    input  wire         busy_i,
    // The last record of a pass has left.
    input  wire         pass_done_i,
    input  wire         error_valid_i,
    input  wire [7:0]   error_code_i,
    input  wire [23:0]  error_info_i,
    input  wire [95:0]  done_i,
    input  wire [15:0]  live_i,
    input  wire [639:0] counters_i
);
  `include "rowvit_defs.vh"

  generate
    if (ROWS > 15) begin : g_bad_rows
      illegal_parameter_axil_regs_rows_must_be_at_most_15 u_bad();
    end
    if (GROUPS > 255) begin : g_bad_groups
      illegal_parameter_axil_regs_groups_must_be_at_most_255 u_bad();
    end
    if (LANES > 4095) begin : g_bad_lanes
      illegal_parameter_axil_regs_lanes_must_be_at_most_4095 u_bad();
    end
  endgenerate

  reg [31:0] base_lo_q, base_hi_q, program_q, length_q, watchdog_q, error_q;
  reg [15:0] passes_q, run_passes_q, passes_done_q;
  reg [1:0] irq_enable_q, irq_status_q;
  reg started_q, start_q, reset_q;

  // Write: when address and data have come, in any order. READY is of registers alone: AXI has no combinational
  // path from an input to an output (IHI0022, A3.1.1).
  reg bvalid_q, up_q;  // no READY in reset, so that a master that leaves it earlier waits (PG373, "Resets")
  reg addr_held_q, data_held_q;
  reg [11:2] addr_q;
  reg [35:0] data_q;
  wire addr_in = s_axil_awvalid && s_axil_awready;
  wire data_in = s_axil_wvalid && s_axil_wready;
  wire write = (addr_in || addr_held_q) && (data_in || data_held_q);
  wire [11:0] waddr = {addr_held_q ? addr_q : s_axil_awaddr[11:2], 2'b00};
  wire [3:0] wstrb;
  wire [31:0] wdata;
  assign {wstrb, wdata} = data_held_q ? data_q : {s_axil_wstrb, s_axil_wdata};

  assign s_axil_awready = !bvalid_q && !addr_held_q && up_q;
  assign s_axil_wready = !bvalid_q && !data_held_q && up_q;
  assign s_axil_bvalid = bvalid_q;
  assign s_axil_bresp = 2'b00;

  wire error = error_q[7:0] != ERROR_NONE;
  wire control = write && waddr == REG_CONTROL && wstrb[0];
  wire done = started_q && !busy_i && passes_done_q == run_passes_q;

  always @(posedge clk_i) begin
    up_q <= rst_ni;
    addr_held_q <= (addr_in || addr_held_q) && !write;
    data_held_q <= (data_in || data_held_q) && !write;
    if (addr_in) addr_q <= s_axil_awaddr[11:2];
    if (data_in) data_q <= {s_axil_wstrb, s_axil_wdata};
    bvalid_q <= write || (bvalid_q && !s_axil_bready);
    start_q <= control && wdata[0] && !wdata[1] && !busy_i && !error;
    reset_q <= control && wdata[1];
    if (!rst_ni) begin
      addr_held_q <= 1'b0;
      data_held_q <= 1'b0;
      bvalid_q <= 1'b0;
      start_q <= 1'b0;
      reset_q <= 1'b0;
    end
  end

  wire settings = !busy_i && !start_q;  // may be changed
  integer i;
  always @(posedge clk_i) begin
    if (write) begin
      for (i = 0; i < 4; i = i + 1) begin
        if (wstrb[i]) begin
          if (settings && waddr == REG_BASE_LO) base_lo_q[8*i+:8] <= wdata[8*i+:8];
          if (settings && waddr == REG_BASE_HI) base_hi_q[8*i+:8] <= wdata[8*i+:8];
          if (settings && waddr == REG_PROGRAM) program_q[8*i+:8] <= wdata[8*i+:8];
          if (settings && waddr == REG_LENGTH) length_q[8*i+:8] <= wdata[8*i+:8];
          if (settings && waddr == REG_WATCHDOG) watchdog_q[8*i+:8] <= wdata[8*i+:8];
        end
      end
      for (i = 0; i < 2; i = i + 1)
        if (settings && wstrb[i] && waddr == REG_PASSES)
          passes_q[8*i+:8] <= wdata[8*i+:8];
      if (wstrb[0] && waddr == REG_IRQ_ENABLE) irq_enable_q <= wdata[1:0];
    end
    if (!rst_ni) begin
      base_lo_q <= 0;
      base_hi_q <= 0;
      program_q <= 0;
      length_q <= 0;
      watchdog_q <= 0;
      passes_q <= 0;
      irq_enable_q <= 0;
    end
  end

  wire clear = write && waddr == REG_IRQ_STATUS && wstrb[0];
  // What the run leaves behind: passes done, error, interrupts.
  always @(posedge clk_i) begin
    started_q <= started_q || start_q;
    if (start_q) begin
      run_passes_q <= passes_q;
      passes_done_q <= 0;
    end else if (pass_done_i) begin
      passes_done_q <= passes_done_q + 1'b1;
    end
    if (error_valid_i && !error) error_q <= {error_info_i, error_code_i};
    // An event in the cycle in which the host clears the last one must not be lost.
    irq_status_q <= (irq_status_q & ~(wdata[1:0] & {2{clear}}))
        | {error_valid_i && !error, pass_done_i};
    if (!rst_ni || reset_q) begin
      started_q <= 1'b0;
      run_passes_q <= 0;
      passes_done_q <= 0;
      error_q <= 0;
      irq_status_q <= 0;
    end
  end

  // Read.
  reg rvalid_q;
  reg [31:0] rdata_q, rdata_d;
  wire read = s_axil_arvalid && s_axil_arready;
  wire [11:0] raddr = {s_axil_araddr[11:2], 2'b00};
  // One aligned block of 32 words, so that the address bits select directly.
  wire [1023:0] counters = {{(1024-32*N_COUNTER){1'b0}}, counters_i};

  assign s_axil_arready = !rvalid_q && up_q;
  assign s_axil_rvalid = rvalid_q;
  assign s_axil_rdata = rdata_q;
  assign s_axil_rresp = 2'b00;

  always @* begin
    rdata_d = 32'h0;
    case (raddr)
      REG_ID: rdata_d = ID;
      REG_ABI: rdata_d = ABI_VERSION;
      REG_CONFIG_HASH: rdata_d = CONFIG_HASH;
      REG_CAPS: rdata_d = (LANES << 12) | (GROUPS << 4) | ROWS;
      REG_STATUS: rdata_d = {passes_done_q, 13'b0, error, done, busy_i};
      REG_ERROR: rdata_d = error_q;
      REG_IRQ_ENABLE: rdata_d = {30'b0, irq_enable_q};
      REG_IRQ_STATUS: rdata_d = {30'b0, irq_status_q};
      REG_BASE_LO: rdata_d = base_lo_q;
      REG_BASE_HI: rdata_d = base_hi_q;
      REG_PROGRAM: rdata_d = program_q;
      REG_LENGTH: rdata_d = length_q;
      REG_PASSES: rdata_d = {16'b0, passes_q};
      REG_WATCHDOG: rdata_d = watchdog_q;
      REG_PROGRESS0: rdata_d = done_i[31:0];
      REG_PROGRESS1: rdata_d = done_i[63:32];
      REG_PROGRESS2: rdata_d = done_i[95:64];
      REG_LIVE: rdata_d = {16'b0, live_i};
      default: if ((raddr & 12'hF80) == COUNTER_BASE) rdata_d = counters[32*raddr[6:2]+:32];
    endcase
  end

  always @(posedge clk_i) begin
    rvalid_q <= read || (rvalid_q && !s_axil_rready);
    if (!rst_ni) rvalid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (read) rdata_q <= rdata_d;
  end

  assign start_o = start_q;
  assign reset_o = reset_q;
  assign base_o = {base_hi_q, base_lo_q};
  assign program_o = program_q;
  assign length_o = length_q;
  assign passes_o = passes_q;
  assign watchdog_o = watchdog_q;
  assign irq_o = |(irq_enable_q & irq_status_q);
endmodule

`default_nettype wire
