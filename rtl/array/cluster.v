// SPDX-License-Identifier: Apache-2.0
// One row's share of one group: LANES multiply-accumulators that share the scalar x, and a shadow
// copy of the accumulators that drains while the next tile is computed.
// Throughput LANES MAC per cycle. Latency: x_i/w_i to accumulator 5, to shadow 6 (with last_i).
// Resources: LANES/2 DSP48E1, about 26 LUT and 52 FF per lane.
`default_nettype none
module cluster #(
    parameter LANES   = 64,
    parameter ACC_W   = 26,
    parameter USE_DSP = 0
) (
    input  wire                   clk_i,
    input  wire                   en_i,
    input  wire                   first_i,   // first product of a tile: load instead of add
    input  wire                   last_i,    // last product of a tile: copy to the shadow
    input  wire signed [8:0]      x_i,
    input  wire [8*LANES-1:0]     w_i,
    output reg  [ACC_W*LANES-1:0] shadow_o
);
  localparam LAT = 4;

  reg [LAT-1:0] en_q, first_q, last_q;
  reg           capture_q;
  always @(posedge clk_i) begin
    en_q      <= {en_q[LAT-2:0], en_i};
    first_q   <= {first_q[LAT-2:0], first_i};
    last_q    <= {last_q[LAT-2:0], en_i & last_i};
    capture_q <= last_q[LAT-1];
  end
  wire en    = en_q[LAT-1];
  wire first = first_q[LAT-1];

  genvar i;
  generate
    for (i = 0; i < LANES; i = i + 2) begin : g_pair
      wire [16:0] p0, p1;
      wire        borrow;
      reg  [ACC_W-1:0] acc0_q, acc1_q;
      // The correction of the high field enters as a carry; the product is the operand that needs no
      // gate of its own, so that a lane costs one LUT per bit.
      wire [ACC_W-1:0] sum0 = {{(ACC_W - 17) {p0[16]}}, p0} + (acc0_q & {ACC_W{~first}});
      wire [ACC_W:0]   sum1 = {{(ACC_W - 17) {p1[16]}}, p1, borrow} + {acc1_q & {ACC_W{~first}}, 1'b1};
      mac_pair #(
          .USE_DSP(USE_DSP)
      ) u_mac (
          .clk_i(clk_i),
          .x_i  (x_i),
          .w0_i (w_i[8*i+:8]),
          .w1_i (w_i[8*i+8+:8]),
          .p0_o (p0),
          .p1_o (p1),
          .borrow_o(borrow)
      );
      always @(posedge clk_i) begin
        if (en) begin
          acc0_q <= sum0;
          acc1_q <= sum1[ACC_W:1];
        end
        if (capture_q) begin
          shadow_o[ACC_W*i+:ACC_W]       <= acc0_q;
          shadow_o[ACC_W*(i+1)+:ACC_W] <= acc1_q;
        end
      end
    end
  endgenerate
endmodule
`default_nettype wire
