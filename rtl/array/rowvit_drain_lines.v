// SPDX-License-Identifier: Apache-2.0
// Drain to the weight memory, stages 11 and 12: K^T and V. K^T: a lane of all rows into neighbouring lanes of
// a line. V: a word of eight lanes is complete for all rows at once; they go to their lines one after the
// other, which takes no longer than the next word.
// Throughput 1 lane per cycle. Latency 2 from stage 10; V: 3 from a word's last lane, a cycle more per row.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_drain_lines #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a weight line's number.
    parameter AW = 10,
    // Bits of a row's number.
    parameter BANK_W = 1
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    // stage 10: a lane of K or V
    input  wire                      key10_i,
    input  wire                      value10_i,
    input  wire [AW-1:0]             dst10_i,     // line of token 0
    input  wire [AW-1:0]             token10_i,   // token of row 0
    input  wire [$clog2(LANES)-1:0]  lane10_i,
    input  wire [ROWS-1:0]           rows10_i,
    // stage 11: its int8, and whether it is the last lane of a word
    input  wire                      valid11_i,
    input  wire                      word_end11_i,
    input  wire [$clog2(LANES)-4:0]  place11_i,   // the word's number in its group
    input  wire [7:0]                groups11_i,
    input  wire [8*ROWS*GROUPS-1:0]  data11_i,
    // the last word of every row and group (rowvit_drain_words.v)
    input  wire [64*ROWS*GROUPS-1:0] word12_i,
    // weight memory, never refused
    output wire                      ww_next_o,   // writes in the next cycle
    output reg  [GROUPS-1:0]         ww_valid_o,
    output wire [`WW_ALL]             ww_o
);
  localparam LW = $clog2(LANES);

  reg            key11_q, value11_q;
  reg [LW-1:0]   key_lane11_q;
  reg [ROWS-1:0] rows11_q;
  reg [AW-1:0]   line11_q;
  always @(posedge clk_i) begin
    key11_q      <= key10_i;
    value11_q    <= value10_i;
    rows11_q     <= rows10_i;
    key_lane11_q <= token10_i[LW-1:0];
    line11_q     <= dst10_i + (key10_i ? {token10_i[AW-1:LW], {LW{1'b0}}} + {{(AW - LW) {1'b0}}, lane10_i}
                                       : token10_i);
  end

  reg              word_q;       // a row's word goes
  reg [ROWS-1:0]   word_rows_q;  // the rows that are left, of which the first has this turn
  reg [BANK_W-1:0] word_row_q;
  reg [AW-1:0]     word_line_q;
  reg [LW-4:0]     word_place_q;
  reg [7:0]        word_groups_q;
  wire             word_end = word_end11_i && value11_q;
  wire             word_last = word_rows_q == {{(ROWS - 1) {1'b0}}, 1'b1};
  wire             key11 = valid11_i && key11_q;
  // The odd lane of a pair is less by one where the even lane is negative (rowvit_mac_pair.v).
  reg [64*GROUPS-1:0] lanes12;
  reg [7:0]           even12, odd12;
  integer p, q, t, j;
  always @*
    for (p = 0; p < GROUPS; p = p + 1)
      for (q = 0; q < 8; q = q + 2) begin
        even12 = word_q ? 8'd0 : data11_i[8*(q%ROWS*GROUPS+p)+:8];
        odd12  = word_q ? 8'd0 : data11_i[8*((q+1)%ROWS*GROUPS+p)+:8];
        for (t = 0; t < ROWS; t = t + 1)
          if (word_q && word_row_q == t[BANK_W-1:0]) begin
            even12 = even12 | word12_i[64*(t*GROUPS+p)+8*q+:8];
            odd12  = odd12 | word12_i[64*(t*GROUPS+p)+8*q+8+:8];
          end
        lanes12[64*p+8*q+:8]   = even12;
        lanes12[64*p+8*q+8+:8] = odd12 - {7'd0, even12[7]};
      end
  reg [AW-1:0]        line_q;
  reg [LANES-1:0]     be_q;
  reg [64*GROUPS-1:0] clear_q;
  assign ww_o[`WW_LINE] = line_q;
  assign ww_o[`WW_BE] = be_q;
  assign ww_o[`WW_CLEAR] = clear_q;
  wire [7:0] groups = word_q ? word_groups_q : groups11_i;
  assign ww_next_o = key11 || word_q;
  always @(posedge clk_i) begin
    if (word_end) begin
      word_rows_q   <= rows11_q;
      word_row_q    <= {BANK_W{1'b0}};
      word_line_q   <= line11_q;
      word_place_q  <= place11_i;
      word_groups_q <= groups11_i;
    end else begin
      word_rows_q <= word_rows_q >> 1;
      word_row_q  <= word_row_q + 1'b1;
      word_line_q <= word_line_q + 1'b1;
    end
    if (word_end) word_q <= 1'b1;
    else if (word_last) word_q <= 1'b0;
    for (j = 0; j < GROUPS; j = j + 1) begin
      ww_valid_o[j] <= ww_next_o && j < groups;
      clear_q[64*j+:64] <= ww_next_o ? ~lanes12[64*j+:64] : 64'd0;
    end
    be_q   <= word_q ? {{(LANES - 8) {1'b0}}, 8'hff} << {word_place_q, 3'd0}
                     : {{(LANES - ROWS) {1'b0}}, rows11_q} << key_lane11_q;
    line_q <= word_q ? word_line_q : line11_q;
    if (!rst_ni) begin
      word_q <= 1'b0;
      ww_valid_o <= {GROUPS{1'b0}};
    end
  end
endmodule
`default_nettype wire
