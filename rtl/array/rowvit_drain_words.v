// SPDX-License-Identifier: Apache-2.0
// Drain to the token memory, and V's words: packs the int8 results of a lane per cycle, one of every
// row and group, into words of eight, or into compressed segments. The softmax has its probabilities
// compressed here, too: hidden rows and P never come at once. One word per cycle and bank: assembled
// words come GROUPS at a time every 8 cycles and go first, segments' words fill the gaps.
// Throughput ROWS*GROUPS results per cycle. Latency 2 from a word's last result, if it goes first.
`default_nettype none

module rowvit_drain_words #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64
) (
    input  wire                         clk_i,
    input  wire                         rst_ni,
    // a lane of every row and group that exists; those of a word come without a gap
    input  wire                         valid_i,
    input  wire                         dense_i,   // to plain words
    input  wire                         sparse_i,  // to compressed segments
    input  wire [ROWS*GROUPS-1:0]       active_i,
    input  wire [$clog2(LANES)-4:0]     place_i,   // the word's number in its group
    input  wire [ROWS-1:0]              word_end_i,  // valid_i, and the last lane of a word: a copy per row
    input  wire [15:0]                  base_i,    // token memory word of group 0, lane 0
    input  wire [8*ROWS*GROUPS-1:0]     data_i,
    // probabilities: the next lane of a segment in every row and group, a copy of p_feed_i per row. No
    // segment may end while the one before is closed.
    input  wire [ROWS-1:0]              p_feed_i,
    input  wire [8*ROWS*GROUPS-1:0]     p_data_i,
    input  wire [ROWS*GROUPS-1:0]       p_keep_i,  // it is not 0
    input  wire [16*GROUPS-1:0]         p_base_i,  // of the segment, with its first lane
    output wire [ROWS*GROUPS-1:0]       p_closed_o,
    output wire                         p_idle_o,  // all words have left
    // the last word of every row and group, until the next one ends
    output wire [64*ROWS*GROUPS-1:0]    word_o,
    // a segment of hidden values has ended, with its bitmap
    output wire [ROWS*GROUPS-1:0]       seg_valid_o,
    output wire [LANES*ROWS*GROUPS-1:0] seg_map_o,
    // token memory, never refused
    output reg  [ROWS-1:0]              tw_valid_o,
    output reg  [16*ROWS-1:0]           tw_addr_o,
    output reg  [64*ROWS-1:0]           tw_data_o
);
  localparam N = ROWS * GROUPS;
  localparam LW = $clog2(LANES);
  localparam SEGW = 1 + LANES / 8;

  genvar r, g;
  wire [N-1:0]    cw_valid, cw_ready;
  wire [16*N-1:0] cw_addr;
  wire [64*N-1:0] cw_data;
  wire [N-1:0]    idle, seg_valid;
  reg  [ROWS-1:0] fed_q;  // what ends now is a segment of P
  reg  [N-1:0]    aw_valid_q;
  wire [N-1:0]    aw_ready;
  reg  [16*N-1:0] aw_addr_q;
  reg  [64*N-1:0] aw_data_q;
  assign word_o = aw_data_q;
  assign p_idle_o = &idle;
  always @(posedge clk_i) fed_q <= p_feed_i;
  wire [16*GROUPS-1:0] base;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_base
      localparam SEG0 = g * SEGW;
      assign base[16*g+:16] = p_feed_i[0] ? p_base_i[16*g+:16] : base_i + SEG0[15:0];
    end
    for (r = 0; r < ROWS; r = r + 1) begin : g_word_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_word
        localparam I = r * GROUPS + g;
        localparam WORD0 = g * LANES / 8;  // groups follow each other
        reg [55:0] bytes_q;
        always @(posedge clk_i) begin
          bytes_q <= {data_i[8*I+:8], bytes_q[55:8]};
          aw_valid_q[I] <= (word_end_i[r] && dense_i && active_i[I]) || (aw_valid_q[I] && !aw_ready[I]);
          if (word_end_i[r]) begin
            aw_data_q[64*I+:64] <= {data_i[8*I+:8], bytes_q};
            aw_addr_q[16*I+:16] <= base_i + WORD0[15:0] + {{(19 - LW) {1'b0}}, place_i};
          end
          if (!rst_ni) aw_valid_q[I] <= 1'b0;
        end
        rowvit_compress #(
            .LANES(LANES), .NEVER_REFUSED(1)
        ) u_compress (
            .clk_i(clk_i), .rst_ni(rst_ni),
            .in_valid_i(p_feed_i[r] || (valid_i && sparse_i && active_i[I])), .in_ready_o(),
            .in_data_i(p_feed_i[r] ? p_data_i[8*I+:8] : data_i[8*I+:8]),
            .in_keep_i(p_feed_i[r] ? p_keep_i[I] : |data_i[8*I+:8]), .in_base_i(base[16*g+:16]),
            .closed_o(p_closed_o[I]),
            .out_valid_o(cw_valid[I]), .out_ready_i(cw_ready[I]),
            .out_addr_o(cw_addr[16*I+:16]), .out_data_o(cw_data[64*I+:64]),
            .seg_valid_o(seg_valid[I]), .seg_bitmap_o(seg_map_o[LANES*I+:LANES]), .idle_o(idle[I])
        );
        assign seg_valid_o[I] = seg_valid[I] && !fed_q[r];
      end
      // One word per cycle and bank; assembled words come GROUPS at a time every 8 cycles and go first.
      wire [2*GROUPS-1:0] want = {cw_valid[r*GROUPS+:GROUPS], aw_valid_q[r*GROUPS+:GROUPS]};
      wire [2*GROUPS-1:0] pick = want & (~want + {{(2 * GROUPS - 1) {1'b0}}, 1'b1});
      assign {cw_ready[r*GROUPS+:GROUPS], aw_ready[r*GROUPS+:GROUPS]} = pick;
      reg [15:0] addr;
      reg [63:0] data;
      integer k;
      always @* begin
        addr = 16'd0;
        data = 64'd0;
        for (k = 0; k < GROUPS; k = k + 1) begin
          addr = addr | (aw_addr_q[16*(r*GROUPS+k)+:16] & {16{pick[k]}})
                      | (cw_addr[16*(r*GROUPS+k)+:16] & {16{pick[GROUPS+k]}});
          data = data | (aw_data_q[64*(r*GROUPS+k)+:64] & {64{pick[k]}})
                      | (cw_data[64*(r*GROUPS+k)+:64] & {64{pick[GROUPS+k]}});
        end
      end
      always @(posedge clk_i) begin
        tw_valid_o[r] <= |want;
        tw_addr_o[16*r+:16] <= addr;
        tw_data_o[64*r+:64] <= data;
        if (!rst_ni) tw_valid_o[r] <= 1'b0;
      end
    end
  endgenerate
endmodule
`default_nettype wire
