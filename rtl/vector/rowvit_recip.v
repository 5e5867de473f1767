// SPDX-License-Identifier: Apache-2.0
// Reciprocal (docs/numerics.md, section 1): n = floor(log2 q), R = floor(2^(n+16) / q), q >= 1.
// Restoring division of 2^n by q, one bit of R per cycle; no normalising shift is needed, since
// 2^n <= q < 2^(n+1) already.
// Throughput: one per 18 cycles. Latency: done_o 18 cycles after start_i; n_o and r_o then hold
// until the next start.
`default_nettype none

module rowvit_recip #(
    // Bits of q, at most 31.
    parameter QW = 27
) (
    input  wire          clk_i,
    input  wire          rst_ni,
    input  wire          start_i,
    input  wire [QW-1:0] q_i,
    output reg           done_o,
    output reg  [4:0]    n_o,
    output reg  [16:0]   r_o
);
  localparam STEPS = 17;

  reg [QW-1:0] q_q;
  reg [QW:0]   rem_q;
  reg [4:0]    step_q;

  // Leading one of q: the lowest one of the reversed vector, isolated by a carry chain.
  wire [QW-1:0] reversed, leading;
  wire [QW-1:0] lowest = reversed & (~reversed + {{(QW - 1){1'b0}}, 1'b1});
  genvar i;
  generate
    for (i = 0; i < QW; i = i + 1) begin : g_reverse
      assign reversed[i] = q_i[QW-1-i];
      assign leading[i] = lowest[QW-1-i];
    end
  endgenerate

  reg [4:0] n_d;
  integer b;
  always @* begin
    n_d = 5'd0;
    for (b = 0; b < QW; b = b + 1) n_d = n_d | (leading[b] ? b[4:0] : 5'd0);
  end

  wire [QW:0] diff = rem_q - {1'b0, q_q};  // between -q and q
  wire        fits = !diff[QW];

  always @(posedge clk_i) begin
    done_o <= !start_i && step_q == 5'd1;
    step_q <= ({5{start_i}} & STEPS[4:0]) | ({5{!start_i}} & (step_q - {4'd0, |step_q}));
    if (!rst_ni) begin
      done_o <= 1'b0;
      step_q <= 5'd0;
    end
  end

  always @(posedge clk_i) begin
    if (start_i) begin
      q_q <= q_i;
      n_o <= n_d;
    end
    // Only the results hold; a remainder is nobody's after the last step.
    if (step_q != 5'd0) r_o <= {r_o[15:0], fits};
    rem_q <= ({(QW + 1) {start_i}} & {1'b0, leading})
           | ({(QW + 1) {!start_i}} & {fits ? diff[QW-1:0] : rem_q[QW-1:0], 1'b0});
  end
endmodule

`default_nettype wire
