// SPDX-License-Identifier: Apache-2.0
// The RTL of cluster and its netlist side by side on the same inputs.
`default_nettype none
module lockstep_cluster (
    input  wire         clk_i,
    input  wire         en_i,
    input  wire         first_i,
    input  wire         last_i,
    input  wire [8:0]   x_i,
    input  wire [63:0]  a_i,
    input  wire [63:0]  b_i,
    input  wire         use_b_i,
    output wire [207:0] rtl_o,
    output wire [207:0] gate_o
);
  rowvit_cluster #(
      .LANES(8)
  ) u_rtl (
      .clk_i(clk_i), .en_i(en_i), .first_i(first_i), .last_i(last_i), .x_i(x_i), .a_i(a_i), .b_i(b_i),
      .use_b_i(use_b_i), .shadow_o(rtl_o)
  );
  cluster_gate u_gate (
      .clk_i(clk_i), .en_i(en_i), .first_i(first_i), .last_i(last_i), .x_i(x_i), .a_i(a_i), .b_i(b_i),
      .use_b_i(use_b_i), .shadow_o(gate_o)
  );
endmodule
`default_nettype wire
