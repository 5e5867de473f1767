// SPDX-License-Identifier: Apache-2.0
// axil_regs: AXI4-Lite's rules, one response per request, what is written is read back, starts and errors.
`default_nettype none

module axil_regs_proof (
    input wire         clk_i,
    input wire         rst_ni,
    input wire [11:0]  awaddr, araddr,
    input wire         awvalid, wvalid, bready, arvalid, rready,
    input wire [31:0]  wdata,
    input wire [3:0]   wstrb,
    input wire         busy, pass_done, error_valid,
    input wire [7:0]   error_code,
    input wire [23:0]  error_info,
    input wire [95:0]  done,
    input wire [15:0]  live,
    input wire [639:0] counters
);
  `include "rowvit_defs.vh"
  wire awready, wready, bvalid, arready, rvalid, start, reset, irq;
  wire [31:0] rdata, program_offset, length, watchdog;
  wire [63:0] base;
  wire [15:0] passes;
  wire [1:0] bresp, rresp;
  rowvit_axil_regs u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .s_axil_awaddr(awaddr), .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_wdata(wdata),
      .s_axil_wstrb(wstrb), .s_axil_wvalid(wvalid), .s_axil_wready(wready), .s_axil_bresp(bresp),
      .s_axil_bvalid(bvalid), .s_axil_bready(bready), .s_axil_araddr(araddr), .s_axil_arvalid(arvalid),
      .s_axil_arready(arready), .s_axil_rdata(rdata), .s_axil_rresp(rresp), .s_axil_rvalid(rvalid),
      .s_axil_rready(rready),
      .start_o(start), .reset_o(reset), .base_o(base), .program_o(program_offset), .length_o(length),
      .passes_o(passes), .watchdog_o(watchdog), .irq_o(irq),
      .busy_i(busy), .pass_done_i(pass_done), .error_valid_i(error_valid), .error_code_i(error_code),
      .error_info_i(error_info), .done_i(done), .live_i(live), .counters_i(counters)
  );

  reg past = 1'b0;  // there is a cycle before this one
  always @(posedge clk_i) past <= 1'b1;
  always @* if (!past) assume (!rst_ni);
  // The core's error codes are not 0.
  always @* if (error_valid) assume (error_code != 0);

  // ---------------------------------------------------------------- handshakes
  // The master keeps what it offers.
  always @(posedge clk_i) if (past && $past(rst_ni) && rst_ni) begin
    if ($past(awvalid && !awready)) assume (awvalid && $stable(awaddr));
    if ($past(wvalid && !wready)) assume (wvalid && $stable(wdata) && $stable(wstrb));
    if ($past(arvalid && !arready)) assume (arvalid && $stable(araddr));
    if ($past(bvalid && !bready)) assert (bvalid && $stable(bresp));
    if ($past(rvalid && !rready)) assert (rvalid && $stable(rdata) && $stable(rresp));
  end
  // A write is what address and data make that have come, in any order.
  reg have_address = 0, have_data = 0;
  reg [11:2] first_address;
  reg [35:0] first_data;
  wire [11:0] at = {have_address ? first_address : awaddr[11:2], 2'b00};
  wire [31:0] data = have_data ? first_data[31:0] : wdata;
  wire [3:0] strobe = have_data ? first_data[35:32] : wstrb;
  wire write = (have_address || (awvalid && awready)) && (have_data || (wvalid && wready));
  always @(posedge clk_i) begin
    have_address <= (have_address || (awvalid && awready)) && !write;
    have_data <= (have_data || (wvalid && wready)) && !write;
    if (awvalid && awready) first_address <= awaddr[11:2];
    if (wvalid && wready) first_data <= {wstrb, wdata};
    if (!rst_ni) begin
      have_address <= 0;
      have_data <= 0;
    end
  end
  (* hierconn *) wire \u_dut.addr_held_q ;
  (* hierconn *) wire \u_dut.data_held_q ;
  (* hierconn *) wire [11:2] \u_dut.addr_q ;
  (* hierconn *) wire [35:0] \u_dut.data_q ;
  always @* if (past) begin
    assert (\u_dut.addr_held_q == have_address && \u_dut.data_held_q == have_data);
    if (have_address) assert (\u_dut.addr_q == first_address);
    if (have_data) assert (\u_dut.data_q == first_data);
  end
  reg [1:0] aw_open = 0, w_open = 0, ar_open = 0;  // requests without their response
  always @(posedge clk_i) begin
    aw_open <= aw_open + (awvalid && awready) - (bvalid && bready);
    w_open <= w_open + (wvalid && wready) - (bvalid && bready);
    ar_open <= ar_open + (arvalid && arready) - (rvalid && rready);
    if (!rst_ni) begin
      aw_open <= 0;
      w_open <= 0;
      ar_open <= 0;
    end
  end
  always @* if (past) begin
    assert (aw_open == (bvalid || have_address) && w_open == (bvalid || have_data) && ar_open == rvalid);
    assert (!(bvalid && (have_address || have_data)) && !(have_address && have_data));
  end
  always @(posedge clk_i) if (past && !$past(rst_ni)) assert (!awready && !wready && !arready);

  // ---------------------------------------------------------------- read back
  // One register at a time, and a model of it: which one is the solver's choice.
  (* anyconst *) wire [2:0] which;
  wire [11:0] address = which == 0 ? REG_BASE_LO : which == 1 ? REG_BASE_HI : which == 2 ? REG_PROGRAM
      : which == 3 ? REG_LENGTH : which == 4 ? REG_PASSES : which == 5 ? REG_WATCHDOG : REG_IRQ_ENABLE;
  wire [31:0] mask = which == 4 ? 32'hffff : which > 5 ? 32'h3 : 32'hffffffff;
  wire [31:0] strobes = {{8{strobe[3]}}, {8{strobe[2]}}, {8{strobe[1]}}, {8{strobe[0]}}} & mask;
  reg [31:0] model = 0;
  reg [31:0] answer = 0;
  reg about = 0;  // the read response is the register's
  wire written = write && at == address;
  always @(posedge clk_i) begin
    // what runs is kept
    if (written && (which > 5 || (!busy && !start))) model <= (model & ~strobes) | (data & strobes);
    if (arvalid && arready) begin
      answer <= model;
      about <= {araddr[11:2], 2'b00} == address;
    end
    if (!rst_ni) begin
      model <= 0;
      about <= 0;
    end
  end
  (* hierconn *) wire [1:0] \u_dut.irq_enable_q ;
  wire [31:0] there = which == 0 ? base[31:0] : which == 1 ? base[63:32] : which == 2 ? program_offset
      : which == 3 ? length : which == 4 ? passes : which == 5 ? watchdog : \u_dut.irq_enable_q ;
  always @* if (past) begin
    if (rvalid && about) assert (rdata == answer);
    assert (there == model);
    assert ((model & ~mask) == 0);
  end

  // ---------------------------------------------------------------- start, reset, error
  reg [31:0] error = 0;  // the first, until a reset
  always @(posedge clk_i) begin
    if (error_valid && error[7:0] == 0) error <= {error_info, error_code};
    if (!rst_ni || reset) error <= 0;
  end
  (* hierconn *) wire [31:0] \u_dut.error_q ;
  always @* if (past) assert (\u_dut.error_q == error);
  wire control = write && at == REG_CONTROL && strobe[0];
  always @(posedge clk_i) if (past && $past(rst_ni)) begin
    assert (start == ($past(control && data[0] && !data[1] && !busy) && $past(error[7:0]) == 0));
    assert (reset == $past(control && data[1]));
    assert (!(start && reset));
    if ($past(arvalid && arready && {araddr[11:2], 2'b00} == REG_ERROR)) assert (rdata == $past(error));
    if ($past(arvalid && arready && {araddr[11:2], 2'b00} == REG_STATUS))
      assert (rdata[0] == $past(busy) && rdata[2] == ($past(error[7:0]) != 0));
  end
  always @(posedge clk_i) if (past && $past(rst_ni) && rst_ni) begin
    cover (start && $past(start, 3));
    cover (rvalid && about && rdata != 0);
    cover (error != 0 && $past(control && data[0]) && !start);
  end
endmodule
`default_nettype wire
