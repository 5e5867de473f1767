// SPDX-License-Identifier: Apache-2.0
// Turns a stall into an error: one pulse when, while busy, nothing moved for limit_i cycles.
// Moved means: progress_i changed or event_i was high. A limit of 0 switches it off.
// Latency: the pulse comes 2 cycles after the limit.
`default_nettype none

module rowvit_watchdog #(
    // Bits of the progress vector.
    parameter WIDTH = 192
) (
    input  wire             clk_i,
    input  wire             rst_ni,
    input  wire             busy_i,
    input  wire [31:0]      limit_i,
    input  wire [WIDTH-1:0] progress_i,
    input  wire             event_i,
    output wire             error_o
);
  reg [WIDTH-1:0] progress_q;
  reg [31:0] idle_q;
  reg moved_q, error_q;

  always @(posedge clk_i) begin
    progress_q <= progress_i;
    moved_q <= event_i || progress_i != progress_q;
  end

  always @(posedge clk_i) begin
    // Stops one beyond the limit, so that a stall is reported once.
    if (limit_i != 0 && idle_q <= limit_i) idle_q <= idle_q + 1'b1;
    error_q <= limit_i != 0 && idle_q == limit_i;
    if (!rst_ni || !busy_i || moved_q) begin
      idle_q <= 0;
      error_q <= 1'b0;
    end
  end

  assign error_o = error_q;
endmodule

`default_nettype wire
