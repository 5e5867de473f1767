// SPDX-License-Identifier: Apache-2.0
// Pairs of lanes, an even one and the odd one after it, of all rows and groups, between requantiser and int8.
// Rotary positions (docs/numerics.md, section 5): each is a sum of two products with the entries that the row's
// place and the lanes' number select; signs are in the table. Gated FFN (section 6): the even lane is 0, and the
// odd one its product with the even one, the gate, unless that is negative.
// Throughput 1 lane per cycle. Latency 4 from y_i to p_o; 2 from lane_i and place_i to the y_i they belong to.
// 2 DSP48E1 for each row and group, a RAMB36 for every two rows.
`default_nettype none
module rowvit_rotary #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // 1: DSP48E1 instances, 0: their behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire                      clk_i,
    input  wire                      we_i,     // of the table
    input  wire [15:0]               waddr_i,
    input  wire [31:0]               wdata_i,
    input  wire [10*ROWS-1:0]        place_i,  // {coordinate 1, coordinate 0} of every row
    input  wire [$clog2(LANES)-1:0]  lane_i,
    input  wire                      read_i,   // it is to be rotated
    input  wire                      valid_i,  // y_i is there, with its lane's lowest bit
    input  wire                      odd_i,
    input  wire                      gated_i,  // of its tile
    input  wire [16*ROWS*GROUPS-1:0] y_i,
    output wire [16*ROWS*GROUPS-1:0] p_o
);
  localparam LW = $clog2(LANES);
  localparam AW = 5 + LW - 1;  // coordinate, pair of the axis, lane of the pair
  localparam SHIFT = 20;       // 14 fraction bits of the table, 6 of y_i; a gate is shifted up by 4
  localparam [47:0] HALF = 48'd1 << (SHIFT - 1);

  wire [AW*ROWS-1:0] addr;
  wire [32*ROWS-1:0] entry;
  rowvit_rotary_table #(
      .ROWS(ROWS), .AW(AW)
  ) u_table (
      .clk_i(clk_i), .we_i(we_i), .waddr_i(waddr_i[AW-1:0]), .wdata_i(wdata_i), .read_i(read_i),
      .addr_i(addr), .data_o(entry)
  );

  reg [4:1] odd_q;
  always @(posedge clk_i) odd_q <= {odd_q[3:1], odd_i};
  genvar r, g;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      wire [4:0] coordinate = lane_i[1] ? place_i[10*r+5+:5] : place_i[10*r+:5];
      assign addr[AW*r+:AW] = {coordinate, lane_i[LW-1:2], lane_i[0]};
      for (g = 0; g < GROUPS; g = g + 1) begin : g_group
        localparam I = r * GROUPS + g;
        // The odd lane's sum is complete with the even one's, but goes out a cycle later.
        wire [47:0] even, odd;
        wire [15:0] y = y_i[16*I+:16], entry_even = entry[32*r+:16], entry_odd = entry[32*r+16+:16];
        reg  [15:0] gate_q;  // of the even lane before
        always @(posedge clk_i) begin
          gate_q <= y;
          if (!valid_i || odd_i || y[15]) gate_q <= 16'd0;
        end
        rowvit_rotary_mac #(
            .REGS(1), .ROUND(HALF), .USE_DSP(USE_DSP)
        ) u_even (
            .clk_i(clk_i), .a_i({{4{entry_even[15]}}, entry_even}), .b_i(y), .first_i(!odd_q[1]), .p_o(even)
        );
        rowvit_rotary_mac #(
            .REGS(2), .ROUND(HALF), .USE_DSP(USE_DSP)
        ) u_odd (
            .clk_i(clk_i), .a_i(gated_i ? {gate_q, 4'd0} : {{4{entry_odd[15]}}, entry_odd}), .b_i(y),
            .first_i(!odd_q[2]), .p_o(odd)
        );
        assign p_o[16*I+:16] = odd_q[4] ? odd[SHIFT+:16] : gated_i ? 16'd0 : even[SHIFT+:16];
      end
    end
  endgenerate
endmodule
`default_nettype wire
