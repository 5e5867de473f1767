// SPDX-License-Identifier: Apache-2.0
// Whether the core runs: from a start for as many passes, until a reset or an error, of which it keeps the
// first one's code for a cycle.
// Throughput: every cycle. Latency: 1 cycle.
`default_nettype none

module rowvit_run (
    input  wire        clk_i,
    input  wire        rst_ni,
    input  wire        clear_i,  // of the cycle behind start_i, reset_i and a reset
    input  wire        start_i,
    input  wire        reset_i,
    input  wire [15:0] passes_i,
    // The last word of a pass leaves.
    input  wire        pass_end_i,
    // Errors, by precedence.
    input  wire        dispatch_error_i,
    input  wire [7:0]  dispatch_code_i,
    input  wire [23:0] dispatch_info_i,
    input  wire        load_error_i,
    input  wire [7:0]  load_code_i,
    input  wire [23:0] load_info_i,
    input  wire        reader_error_i,
    input  wire        recv_error_i,
    input  wire [7:0]  recv_code_i,
    input  wire [23:0] recv_info_i,
    input  wire        watchdog_error_i,
    output wire        start_o,  // a cycle behind start_i
    output wire        run_o,
    output wire        busy_o,
    output wire        pass_done_o,
    output wire        error_valid_o,
    output wire [7:0]  error_code_o,
    output wire [23:0] error_info_o
);
  `include "rowvit_defs.vh"

  reg        start_q, stop_q, run_q, error_q;
  reg [7:0]  error_code_q;
  reg [23:0] error_info_q;
  reg [15:0] passes_left_q;
  assign start_o = start_q;
  assign run_o = run_q;
  assign busy_o = (run_q && !stop_q) || start_q || error_q;
  assign pass_done_o = pass_end_i && !stop_q;
  assign error_valid_o = error_q;
  assign error_code_o = error_code_q;
  assign error_info_o = error_info_q;

  always @(posedge clk_i) begin
    error_q <= run_q && !error_q && (dispatch_error_i || load_error_i || reader_error_i || recv_error_i
                                     || watchdog_error_i);
    error_code_q <= dispatch_error_i ? dispatch_code_i
                  : load_error_i ? load_code_i
                  : reader_error_i ? ERROR_AXI_READ[7:0]
                  : recv_error_i ? recv_code_i : ERROR_WATCHDOG[7:0];
    error_info_q <= dispatch_error_i ? dispatch_info_i
                  : load_error_i ? load_info_i
                  : reader_error_i ? 24'd0
                  : recv_error_i ? recv_info_i : 24'd0;
    if (clear_i || reset_i) error_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    start_q <= start_i;
    stop_q  <= !rst_ni || reset_i;
    if (pass_done_o) begin
      passes_left_q <= passes_left_q - 16'd1;
      if (passes_left_q == 16'd1) run_q <= 1'b0;
    end
    if (error_q) run_q <= 1'b0;
    if (start_q) begin
      run_q         <= passes_i != 16'd0;
      passes_left_q <= passes_i;
    end
    if (stop_q) run_q <= 1'b0;
  end
endmodule
`default_nettype wire
