// SPDX-License-Identifier: Apache-2.0
// FFN2 mask: which hidden channels any row of a row tile uses, so which rows of W2 are loaded. The bitmaps
// of the segments are joined; after the last band of a row tile the words are written, one group per
// cycle. The next segments end many cycles later.
// Throughput: every segment. Latency: GROUPS + 1 cycles from the last segment to the last word; a read
// takes 1.
`default_nettype none

module rowvit_drain_mask #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Words of LANES bits.
    parameter DEPTH = 256
) (
    input  wire                         clk_i,
    input  wire                         rst_ni,
    // the last lane of a tile goes to its segments; the mask is written when they have ended
    input  wire                         tile_end_i,
    input  wire                         write_i,
    input  wire [15:0]                  base_i,    // mask word of group 0
    input  wire [7:0]                   groups_i,
    input  wire [ROWS*GROUPS-1:0]       seg_valid_i,
    input  wire [LANES*ROWS*GROUPS-1:0] seg_map_i,
    input  wire                         mask_read_i,
    input  wire [15:0]                  mask_addr_i,
    output wire [LANES-1:0]             mask_data_o
);
  localparam N = ROWS * GROUPS;
  localparam AW = $clog2(DEPTH);

  reg [LANES*GROUPS-1:0] acc_q, seen;
  reg [15:0] addr_q;
  reg [7:0]  left_q, groups_q;
  reg [GROUPS-1:0] turn_q;  // the group whose word is written
  reg        end_q;
  reg [LANES-1:0] word;
  integer m;
  always @* begin
    seen = {LANES * GROUPS{1'b0}};
    for (m = 0; m < N; m = m + 1)
      if (seg_valid_i[m])
        seen[LANES*(m%GROUPS)+:LANES] = seen[LANES*(m%GROUPS)+:LANES] | seg_map_i[LANES*m+:LANES];
    word = {LANES{1'b0}};
    for (m = 0; m < GROUPS; m = m + 1)
      word = word | (acc_q[LANES*m+:LANES] & {LANES{turn_q[m]}});
  end
  always @(posedge clk_i) begin
    for (m = 0; m < GROUPS; m = m + 1)
      if (turn_q[m]) acc_q[LANES*m+:LANES] <= {LANES{1'b0}};
      else acc_q[LANES*m+:LANES] <= acc_q[LANES*m+:LANES] | seen[LANES*m+:LANES];
    if (tile_end_i) begin
      end_q    <= write_i;
      groups_q <= groups_i;
      addr_q   <= base_i;
    end
    if (|seg_valid_i && end_q) begin
      left_q <= groups_q;
      turn_q <= {{(GROUPS - 1) {1'b0}}, 1'b1};
    end else if (left_q != 8'd0) begin
      left_q <= left_q - 8'd1;
      turn_q <= left_q == 8'd1 ? {GROUPS{1'b0}} : turn_q << 1;
      addr_q <= addr_q + 16'd1;
    end
    if (!rst_ni) begin
      acc_q  <= {LANES * GROUPS{1'b0}};
      left_q <= 8'd0;
      turn_q <= {GROUPS{1'b0}};
    end
  end

  rowvit_sdp_ram #(
      .WIDTH(LANES),
      .DEPTH(DEPTH),
      .AW   (AW)
  ) u_ram (
      .clk_i(clk_i),
      .we_i(left_q != 8'd0), .waddr_i(addr_q[AW-1:0]), .wdata_i(word),
      .re_i(mask_read_i), .raddr_i(mask_addr_i[AW-1:0]), .rdata_o(mask_data_o)
  );
endmodule
`default_nettype wire
