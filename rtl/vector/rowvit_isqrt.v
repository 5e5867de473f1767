// SPDX-License-Identifier: Apache-2.0
// Integer square root, floor(sqrt(v)), of a 52-bit number: digit by digit, one bit per cycle.
// Throughput: one per 27 cycles. Latency: done_o 27 cycles after start_i; root_o then holds until
// the next start.
`default_nettype none

module rowvit_isqrt (
    input  wire        clk_i,
    input  wire        rst_ni,
    input  wire        start_i,
    input  wire [51:0] v_i,
    output reg         done_o,
    output reg  [25:0] root_o
);
  localparam STEPS = 26;

  reg [51:0] v_q;
  reg [26:0] rem_q;  // at most twice the root
  reg [4:0]  step_q;

  wire [28:0] rem = {rem_q, v_q[51:50]};
  wire [28:0] diff = rem - {1'b0, root_o, 2'b01};  // below 2^27 wherever it is taken
  wire        fits = !diff[28];

  always @(posedge clk_i) begin
    done_o <= !start_i && step_q == 5'd1;
    step_q <= ({5{start_i}} & STEPS[4:0]) | ({5{!start_i}} & (step_q - {4'd0, |step_q}));
    if (!rst_ni) begin
      done_o <= 1'b0;
      step_q <= 5'd0;
    end
  end

  always @(posedge clk_i) begin
    // Only the root holds; its operands are nobody's after the last step.
    if (start_i) root_o <= 26'd0;
    else if (step_q != 5'd0) root_o <= {root_o[24:0], fits};
    v_q <= ({52{start_i}} & v_i) | ({52{!start_i}} & {v_q[49:0], 2'b00});
    rem_q <= (fits ? diff[26:0] : rem[26:0]) & {27{!start_i}};
  end
endmodule

`default_nettype wire
