// SPDX-License-Identifier: Apache-2.0
// One bit in N registers, so that each drives a part of its loads. Latency: 1 cycle.
`default_nettype none

module rowvit_copies #(
    // Copies.
    parameter N = 2
) (
    input  wire         clk_i,
    input  wire         d_i,
    output wire [N-1:0] q_o
);
  // Tools merge equal registers unless told not to: Vivado by the register's attribute, Yosys by that
  // of the block it comes from, and only if each has its own.
  genvar i;
  generate
    for (i = 0; i < N; i = i + 1) begin : g_copy
      (* keep = "true" *) reg copy_q;
      (* keep = "true" *) always @(posedge clk_i) copy_q <= d_i;
      assign q_o[i] = copy_q;
    end
  endgenerate
endmodule

`default_nettype wire
