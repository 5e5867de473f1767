// SPDX-License-Identifier: Apache-2.0
// One row's share of one group: LANES multiply-accumulators that share the scalar x, and a shadow
// copy of their sums that drains while the next tile is computed. A lane pair has 52 shadow bits
// {wraps, p}, see rowvit_mac_pair.v.
// Throughput LANES MAC per cycle. Latency: x_i/a_i/b_i to shadow 6 (with last_i).
`default_nettype none
module rowvit_cluster #(
    // Lanes of a group.
    parameter LANES = 64,
    // 1: DSP48E1 primitives, 0: their behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire                clk_i,
    input  wire                en_i,
    input  wire                first_i,   // first product of a tile: start new sums
    input  wire                last_i,    // last product of a tile: copy to the shadow
    input  wire signed [8:0]   x_i,
    input  wire [8*LANES-1:0]  a_i,       // lane pairs as in rowvit_mac_pair.v, from one of two ports
    input  wire [8*LANES-1:0]  b_i,
    input  wire                use_b_i,
    output wire [26*LANES-1:0] shadow_o
);
  reg [2:0] en_q, first_q, last_q;
  always @(posedge clk_i) begin
    en_q    <= {en_q[1:0], en_i};
    first_q <= {first_q[1:0], en_i & first_i};
    last_q  <= {last_q[1:0], en_i & last_i};
  end

  genvar i;
  generate
    if (USE_DSP == 0) begin : g_twin
      rowvit_cluster_twin #(
          .LANES(LANES)
      ) u_twin (
          .clk_i(clk_i), .en_i(en_q[2]), .first_i(first_q[2]), .last_i(last_q[2]),
          .x_i(x_i), .a_i(a_i), .b_i(b_i), .use_b_i(use_b_i), .shadow_o(shadow_o)
      );
    end else begin : g_dsp
      for (i = 0; i < LANES / 2; i = i + 1) begin : g_pair
        // A shadow is 1,664 flip-flops for 64 lanes: every eighth pair has its own enables for eight pairs.
        // Tools merge equal registers unless told not to: Vivado by the register's attribute, Yosys by that
        // of the block.
        wire sum, wraps_too;
        if (i % 8 == 0) begin : g_enable
          (* keep = "true" *) reg sum_q, wraps_q;
          (* keep = "true" *) always @(posedge clk_i) {sum_q, wraps_q} <= {last_q[2], sum_q};
          assign {sum, wraps_too} = {sum_q, wraps_q};
        end else begin : g_share
          assign {sum, wraps_too} = {g_pair[i-i%8].sum, g_pair[i-i%8].wraps_too};
        end
        wire [42:0] p;
        wire [8:0]  wraps;
        reg  [51:0] shadow_q;
        rowvit_mac_pair u_mac (
            .clk_i  (clk_i),
            .x_i    (x_i),
            .a_i    (a_i[16*i+:16]),
            .b_i    (b_i[16*i+:16]),
            .use_b_i(use_b_i),
            .en_i   ({en_q, en_i}),
            .first_i(first_q[2]),
            .p_o    (p),
            .wraps_o(wraps)
        );
        // The wraps are known a cycle after the sum, which the next tile may overwrite by then.
        always @(posedge clk_i) begin
          if (sum) shadow_q[42:0] <= p;
          if (wraps_too) shadow_q[51:43] <= wraps;
        end
        assign shadow_o[52*i+:52] = shadow_q;
      end
    end
  endgenerate
endmodule
`default_nettype wire
