// SPDX-License-Identifier: Apache-2.0
// Register slice that cuts both paths: out_valid_o, out_data_o and in_ready_o come from flip-flops.
// Throughput: one word per cycle. Latency: one cycle.
`default_nettype none

module rowvit_skid_buffer #(
    // Bits per word.
    parameter WIDTH = 8
) (
    input  wire             clk_i,
    input  wire             rst_ni,
    input  wire             clear_i,
    input  wire             in_valid_i,
    output wire             in_ready_o,
    input  wire [WIDTH-1:0] in_data_i,
    output wire             out_valid_o,
    input  wire             out_ready_i,
    output wire [WIDTH-1:0] out_data_o
);
  generate
    if (WIDTH < 1) begin : g_bad_width
      illegal_parameter_skid_buffer_width_must_be_at_least_1 u_bad();
    end
  endgenerate

  // The skid register catches the one word that arrives in the cycle in which the output stalls.
  reg out_valid_q, skid_valid_q;
  reg [WIDTH-1:0] out_data_q, skid_data_q;

  wire out_free = !out_valid_q || out_ready_i;

  assign in_ready_o = !skid_valid_q;
  assign out_valid_o = out_valid_q;
  assign out_data_o = out_data_q;

  always @(posedge clk_i) begin
    out_valid_q <= skid_valid_q || in_valid_i || !out_free;
    skid_valid_q <= (skid_valid_q || in_valid_i) && !out_free;
    if (!rst_ni || clear_i) begin
      out_valid_q <= 1'b0;
      skid_valid_q <= 1'b0;
    end
  end

  always @(posedge clk_i) begin
    if (out_free) out_data_q <= skid_valid_q ? skid_data_q : in_data_i;
    if (!skid_valid_q) skid_data_q <= in_data_i;
  end
endmodule

`default_nettype wire
