// SPDX-License-Identifier: Apache-2.0
// LayerNorm's results on their way to the token memory. Eight values of a lane make a word; the words of an
// octet wait while the next is collected. The pipeline stops when that one is complete as well; to know the
// stop two cycles ahead, so that no read is under way then, a word that leaves meanwhile counts as held.
// Throughput: a word per row and cycle. Latency: 1 cycle from an octet's last value.
`default_nettype none

module rowvit_norm_words #(
    // Rows of a part.
    parameter ROWS = 2,
    // Parts of a band: 1 or 2.
    parameter PARTS = 1,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64
) (
    input  wire                     clk_i,
    input  wire                     rst_ni,
    // The stages move in the next cycle, and in this one.
    input  wire                     move_i,
    input  wire                     en_i,
    // The last stage (the highest bit) and those before it have a value of pass 2; of which an octet ends.
    input  wire [1:0]               value_i,
    input  wire [2:0]               octet_i,
    // The value, and where it goes.
    input  wire [8*ROWS*GROUPS-1:0] y_i,
    input  wire [15:0]              word_i,      // word of group 0
    input  wire [GROUPS-1:0]        groups_i,    // that exist
    input  wire [ROWS-1:0]          rows_i,      // that exist
    input  wire                     part_i,
    input  wire                     band_end_i,  // its word is a band's last,
    input  wire                     op_end_i,    // and the operation's
    // The pipeline must not move in the cycle after the next.
    output wire                     full_o,
    // The last word of a band, and of the operation, leaves.
    output wire                     band_done_o,
    output wire                     op_done_o,
    // Token memory, a bank per row.
    output wire [ROWS*PARTS-1:0]    tw_valid_o,
    input  wire [ROWS*PARTS-1:0]    tw_ready_i,
    output wire [16*ROWS*PARTS-1:0] tw_addr_o,
    output wire [64*ROWS*PARTS-1:0] tw_data_o
);
  localparam N = ROWS * GROUPS;

  wire end_soon = en_i && move_i ? octet_i[0] : en_i || move_i ? octet_i[1] : octet_i[2];
  reg [56*N-1:0]  pack_q;
  reg [64*N-1:0]  hold_q;
  reg [N-1:0]     held_q;      // word of lane waits
  reg [15:0]      hold_addr_q; // of group 0
  reg             hold_part_q, hold_band_q, hold_op_q;
  wire [N-1:0]    taken;
  // A value of pass 2 leaves in this cycle, and an octet ends: known a cycle ahead, a copy for each lane.
  wire            out_d = rst_ni && move_i && (en_i ? value_i[0] : value_i[1]);
  wire            end_d = rst_ni && move_i && (en_i ? octet_i[1] : octet_i[2]);
  wire [N-1:0]    out_now, end_now;
  rowvit_copies #(.N(N)) u_out (.clk_i(clk_i), .d_i(out_d), .q_o(out_now));
  rowvit_copies #(.N(N)) u_end (.clk_i(clk_i), .d_i(end_d), .q_o(end_now));
  wire            holding = |held_q;
  wire            emptied = holding && (held_q & ~taken) == 0;
  assign full_o = holding && end_soon;
  assign band_done_o = emptied && hold_band_q;
  assign op_done_o = emptied && hold_op_q;

  integer i;
  always @(posedge clk_i) begin
    held_q <= held_q & ~taken;
    for (i = 0; i < N; i = i + 1) begin
      if (out_now[i]) pack_q[56*i+:56] <= {y_i[8*i+:8], pack_q[56*i+8+:48]};
      if (end_now[i]) begin
        hold_q[64*i+:64] <= {y_i[8*i+:8], pack_q[56*i+:56]};
        held_q[i] <= groups_i[i % GROUPS] && rows_i[i / GROUPS];
      end
    end
    if (end_now[0]) begin
      hold_addr_q <= word_i;
      {hold_part_q, hold_band_q, hold_op_q} <= {part_i, band_end_i, op_end_i};
    end
    if (!rst_ni) held_q <= 0;
  end

  genvar p, r;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_write
      wire [GROUPS-1:0] want = held_q[r*GROUPS+:GROUPS];
      wire [GROUPS-1:0] pick = want & (~want + {{(GROUPS - 1){1'b0}}, 1'b1});
      reg  [15:0]       offset;
      reg  [63:0]       data;
      integer           k;
      always @* begin
        offset = 16'd0;
        data = 64'd0;
        for (k = 0; k < GROUPS; k = k + 1) begin
          if (pick[k]) offset = offset | k[15:0] * (LANES[15:0] / 16'd8);
          data = data | (hold_q[64*(r*GROUPS+k)+:64] & {64{pick[k]}});
        end
      end
      for (p = 0; p < PARTS; p = p + 1) begin : g_bank
        assign tw_valid_o[p*ROWS+r] = |want && hold_part_q == (p == 1);
        assign tw_addr_o[16*(p*ROWS+r)+:16] = hold_addr_q + offset;
        assign tw_data_o[64*(p*ROWS+r)+:64] = data;
      end
      assign taken[r*GROUPS+:GROUPS] = pick & {GROUPS{tw_ready_i[ROWS*(PARTS>1&&hold_part_q)+r]}};
    end
  endgenerate
endmodule

`default_nettype wire
