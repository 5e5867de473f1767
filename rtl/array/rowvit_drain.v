// SPDX-License-Identifier: Apache-2.0
// Drain: reads the shadow accumulators lane by lane (all rows and groups at once), requantises, and
// writes each result in the order its consumer reads it: token memory rows, compressed hidden rows
// and the FFN2 mask, K^T lanes, V lines, residual sums, softmax, logits.
// Throughput ROWS*GROUPS results per cycle (gathered rows: GROUPS; logits: 1). Latency: REQUANTISE of
// hardware/pipeline.py, from a lane's read to its result.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_drain #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a weight line's number.
    parameter AW = 10,
    // Lane tiles whose biases and multipliers are held.
    parameter PARAM_SLOTS = 4,
    // Words of LANES bits.
    parameter MASK_DEPTH = 256,
    // Bits of a row's number.
    parameter BANK_W = 1,
    // Rows of tokens whose rotary positions are held; 0: none.
    parameter ROTARY_TOKENS = 0,
    // 1: DSP48E1 instances, 0: their behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire                         clk_i,
    input  wire                         rst_ni,
    // tiles
    input  wire                         tile_valid_i,
    output wire                         tile_ready_o,
    input  wire [`T_DRAIN]              tile_i,
    input  wire [511:0]                 instr_i,   // of the operation the tile belongs to
    // shadows
    input  wire                         captured_i,
    output wire                         release_o,
    input  wire [26*LANES*ROWS*GROUPS-1:0] shadow_i,
    // lane-tile parameters
    input  wire                         pw_valid_i,
    input  wire [`PW_ALL]               pw_i,
    // table of rotations and places; rows that stay
    input  wire                         ro_valid_i,
    input  wire [`RO_ALL]               ro_i,
    input  wire                         move_valid_i,
    input  wire [`MV_ALL]               move_i,
    // softmax
    output reg                          s_valid_o,
    output wire [`S_ALL]                s_o,
    output wire                         recip_band_o,
    input  wire [17*ROWS*GROUPS-1:0]    recip_r_i,
    input  wire [5*ROWS*GROUPS-1:0]     recip_n_i,
    // probabilities to compressed segments (rowvit_drain_words.v)
    input  wire [ROWS-1:0]              p_feed_i,
    input  wire [`P_ALL]                p_i,
    output wire [ROWS*GROUPS-1:0]       p_closed_o,
    output wire                         p_idle_o,
    // token memory, never refused
    output wire [ROWS-1:0]              tw_valid_o,
    output wire [16*ROWS-1:0]           tw_addr_o,
    output wire [64*ROWS-1:0]           tw_data_o,
    // weight memory, never refused
    output wire                         ww_next_o,  // writes in the next cycle
    output wire [GROUPS-1:0]            ww_valid_o,
    output wire [`WW_ALL]               ww_o,
    // residual memory; read data two cycles after res_rd_o
    output wire                         res_rd_o,
    output wire [15:0]                  res_raddr_o,
    input  wire [16*ROWS*GROUPS-1:0]    res_rdata_i,
    output wire [ROWS*GROUPS-1:0]       res_we_o,
    output wire                         res_busy_o,  // any of them, if its row and group exist
    output wire [15:0]                  res_waddr_o,
    output wire [16*ROWS*GROUPS-1:0]    res_wdata_o,
    // FFN2 mask
    input  wire                         mask_read_i,
    input  wire [15:0]                  mask_addr_i,
    output wire [LANES-1:0]             mask_data_o,
    // records: a word, and whether it is the last of its record, of the packet (TLAST)
    output wire                         rec_valid_o,
    input  wire                         rec_ready_i,
    output wire [63:0]                  rec_data_o,
    output wire                         rec_eor_o,
    output wire                         rec_last_o,
    input  wire [31:0]                  cycles_i,
    input  wire [31:0]                  fires_i,
    output wire [15:0]                  done_o,
    output wire [15:0]                  bands_o,
    output wire                         busy_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam LW = $clog2(LANES);

  // A bank takes a word per cycle. In LANES cycles a tile makes GROUPS * (1 + LANES / 8) words at most; the
  // 2 * GROUPS that its end leaves behind go in the gaps of the next tile, before that one ends: for at most
  // MAX_GROUPS groups of 64 lanes, or 4 of fewer.
  generate
    if (LANES < 16 || LANES > 64 || (1 << LW) != LANES) begin : g_bad_lanes
      illegal_parameter_drain_lanes_must_be_16_32_or_64 u_bad ();
    end
    if (GROUPS > MAX_GROUPS) begin : g_bad_groups
      illegal_parameter_drain_groups_must_be_at_most_6 u_bad ();
    end
    if (LANES < 64 && GROUPS > 4) begin : g_bad_narrow
      illegal_parameter_drain_groups_of_fewer_than_64_lanes_must_be_at_most_4 u_bad ();
    end
    if (ROTARY_TOKENS != 0 && (ROTARY_TOKENS < 2 * ROWS || ROTARY_TOKENS > 4096
        || (1 << $clog2(ROTARY_TOKENS)) != ROTARY_TOKENS)) begin : g_bad_rotary
      illegal_parameter_drain_rotary_tokens_must_be_0_or_a_power_of_two_to_4096 u_bad ();
    end
    if (PARAM_SLOTS < 2 || PARAM_SLOTS > 256 || (1 << $clog2(PARAM_SLOTS)) != PARAM_SLOTS) begin : g_bad_slots
      illegal_parameter_drain_param_slots_must_be_a_power_of_two_from_2_to_256 u_bad ();
    end
    if (MASK_DEPTH < 2 || MASK_DEPTH > 65536 || (1 << $clog2(MASK_DEPTH)) != MASK_DEPTH) begin : g_bad_mask
      illegal_parameter_drain_mask_depth_must_be_a_power_of_two_from_2_to_65536 u_bad ();
    end
  endgenerate

  // ---------------------------------------------------------------- stage 0: a lane of the tile
  wire [`T_QUEUE] tile;
  wire [`O_ALL]   op;
  wire            step, first, last, marking, room, mark_room, mark;
  wire [LW-1:0]   lane;
  wire [7:0]      sub;
  wire [11:0]     mark_tag;
  rowvit_drain_front #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .BANK_W(BANK_W), .ROTARY(ROTARY_TOKENS != 0)
  ) u_front (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .tile_valid_i(tile_valid_i), .tile_ready_o(tile_ready_o), .tile_i(tile_i), .instr_i(instr_i),
      .captured_i(captured_i), .release_o(release_o),
      .room_i(room), .mark_room_i(mark_room), .marking_i(marking),
      .tile_o(tile), .op_o(op),
      .step_o(step), .first_o(first), .last_o(last), .lane_o(lane), .sub_o(sub),
      .mark_o(mark), .mark_tag_o(mark_tag), .done_o(done_o), .bands_o(bands_o), .busy_o(busy_o)
  );

  // ---------------------------------------------------------------- stages 1 to 10
  wire [3:0]      kind = op[`O_KIND];
  wire [15:0]     band = tile[`T_BAND];
  wire [16*N-1:0] y10;
  reg  [9:1]      valid_q;
  rowvit_drain_requant #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .PARAM_SLOTS(PARAM_SLOTS)
  ) u_requant (
      .clk_i(clk_i), .lane_i(lane), .op_i(op), .odd_band_i(band[0]), .read_i(valid_q[1]), .shadow_i(shadow_i),
      .pw_valid_i(pw_valid_i), .pw_i(pw_i),
      .recip_band_o(recip_band_o), .recip_r_i(recip_r_i), .recip_n_i(recip_n_i), .y_o(y10)
  );

  // Alongside them: which lane it is. A tile has more lanes than the pipeline has stages, so that the
  // head of the queue still describes the tile whose first lane is in stage 9.
  reg [9:1]       first_q, final_q;
  reg [LW*9-1:0]  lanes_q;
  reg [8*9-1:0]   subs_q;
  reg             valid10_q, first10_q, final10_q;
  reg [LW-1:0]    lane10_q;
  reg [7:0]       sub10_q;
  reg [`T_QUEUE]  tile10_q;
  reg [`O_ALL]    op10_q;
  reg [15:0]      token10_q;  // S: token of lane 0; K and V: token of row 0
  always @(posedge clk_i) begin
    valid_q <= {valid_q[8:1], step};
    first_q <= {first_q[8:1], first};
    final_q <= {final_q[8:1], last};
    lanes_q <= {lanes_q[LW*8-1:0], lane};
    subs_q  <= {subs_q[8*8-1:0], sub};
    valid10_q <= valid_q[9];
    first10_q <= first_q[9];
    final10_q <= final_q[9];
    lane10_q  <= lanes_q[LW*8+:LW];
    sub10_q   <= subs_q[8*8+:8];
    if (valid_q[9] && first_q[9]) begin
      tile10_q  <= tile;
      op10_q    <= op;
      token10_q <= kind == KIND_S[3:0] ? tile[`T_TOKEN] : {band[15-BANK_W:0], {BANK_W{1'b0}}};
    end
    if (!rst_ni) {valid_q, valid10_q} <= 10'd0;
  end

  // ---------------------------------------------------------------- stage 10: destinations
  wire [3:0]      kind10   = op10_q[`O_KIND];
  wire            dense10  = op10_q[`O_DENSE];
  wire [15:0]     mult10   = op10_q[`O_MULT];
  wire [15:0]     dst10    = tile10_q[`T_DST];
  wire [7:0]      groups10 = tile10_q[`T_GROUPS];
  wire [ROWS-1:0] rows10   = tile10_q[`T_ROWS];
  wire to_token  = kind10 == DST_TOKEN[3:0] || kind10 == KIND_O[3:0];
  wire to_hidden = kind10 == DST_HIDDEN[3:0];
  wire to_res    = kind10 == DST_RESIDUAL[3:0];
  wire to_stream = kind10 == DST_STREAM[3:0];

  // Rotated and gated results come ROTATE cycles later, with their lane; the tile behind keeps out of their way
  // (front).
  wire            valid10, final10;
  wire [LW-1:0]   at10;
  wire            gated10;
  wire [16*N-1:0] z10;
  generate
    if (ROTARY_TOKENS != 0) begin : g_rotary
      wire                 late10 = op10_q[`O_LATE];
      reg  [ROTATE-1:0]    late_valid_q, late_final_q;
      reg  [LW*ROTATE-1:0] late_lane_q;
      reg  [10:0]          band_q;
      reg  [10*ROWS-1:0]   place8_q;
      wire [10*ROWS-1:0]   place;
      wire [31:0]          ro_data = ro_i[`RO_DATA];
      wire [16*N-1:0]      rotated;
      always @(posedge clk_i) begin
        late_valid_q <= {late_valid_q[ROTATE-2:0], valid10_q && late10};
        late_final_q <= {late_final_q[ROTATE-2:0], final10_q};
        late_lane_q  <= {late_lane_q[LW*(ROTATE-1)-1:0], lane10_q};
        band_q       <= op[`O_PLACE] + band[10:0];
        if (valid_q[7] && first_q[7]) place8_q <= place;
        if (!rst_ni) late_valid_q <= {ROTATE{1'b0}};
      end
      rowvit_rotary_places #(
          .ROWS(ROWS), .BANK_W(BANK_W), .DEPTH(ROTARY_TOKENS)
      ) u_places (
          .clk_i(clk_i), .load_i(ro_valid_i && ro_i[`RO_PLACE]), .load_row_i(ro_i[`RO_ADDRESS]),
          .load_data_i(ro_data[9:0]), .move_i(move_valid_i), .move_row_i(move_i),
          .read_i(valid_q[6] && first_q[6]), .band_i(band_q), .data_o(place)
      );
      rowvit_rotary #(
          .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .USE_DSP(USE_DSP)
      ) u_rotary (
          .clk_i(clk_i), .we_i(ro_valid_i && !ro_i[`RO_PLACE]), .waddr_i(ro_i[`RO_ADDRESS]),
          .wdata_i(ro_data), .place_i(place8_q), .lane_i(lanes_q[LW*7+:LW]),
          .read_i(valid_q[8] && (op[`O_LATE] || late10)),  // the lane's tile is one of these two
          .valid_i(valid10_q), .odd_i(lane10_q[0]), .gated_i(gated10), .y_i(y10), .p_o(rotated)
      );
      assign gated10 = op10_q[`O_GATED];
      assign valid10 = late10 ? late_valid_q[ROTATE-1] : valid10_q;
      assign final10 = late10 ? late_final_q[ROTATE-1] : final10_q;
      assign at10 = late10 ? late_lane_q[LW*(ROTATE-1)+:LW] : lane10_q;
      assign z10 = late10 ? rotated : y10;
    end else begin : g_plain
      assign {valid10, final10, at10, z10, gated10} = {valid10_q, final10_q, lane10_q, y10, 1'b0};
      wire unused = &{1'b0, ro_valid_i, ro_i, move_valid_i, move_i};
    end
  endgenerate
  wire [15:0] lane10 = {{(16 - LW) {1'b0}}, at10};
  reg [N-1:0] active10;
  integer a;
  always @* for (a = 0; a < N; a = a + 1) active10[a] = rows10[a/GROUPS] && (a % GROUPS) < groups10;

  rowvit_drain_residual #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .BANK_W(BANK_W)
  ) u_residual (
      .clk_i(clk_i), .rst_ni(rst_ni), .tile_i(tile), .residual_i(kind == DST_RESIDUAL[3:0]),
      .valid5_i(valid_q[5]), .valid6_i(valid_q[6]),
      .lane5_i(lanes_q[LW*4+:LW]), .lane6_i(lanes_q[LW*5+:LW]), .row5_i(subs_q[8*4+:BANK_W]),
      .valid10_i(valid10_q && to_res), .active10_i(active10), .gather10_i(tile10_q[`T_GATHER]),
      .row10_i(sub10_q[BANK_W-1:0]), .addr10_i(dst10 + lane10), .y10_i(y10),
      .res_rd_o(res_rd_o), .res_raddr_o(res_raddr_o), .res_rdata_i(res_rdata_i),
      .res_we_o(res_we_o), .res_busy_o(res_busy_o), .res_waddr_o(res_waddr_o), .res_wdata_o(res_wdata_o)
  );

  // ---------------------------------------------------------------- stage 11: results
  reg            valid11_q, final11_q, dense11_q, sparse11_q, stream11_q, mask_end11_q;
  reg [N-1:0]    active11_q;
  reg [15:0]     dst11_q, mask11_q;
  reg [7:0]      groups11_q;
  reg [LW-1:0]   lane11_q;
  reg [16*GROUPS-1:0] logit11_q;
  reg [8*N-1:0]  b11_q;    // int8, or uint8 after ReLU
  reg [15:0]     s_token_q;
  reg            s_first_q, s_last_q;
  reg [12*N-1:0] s_data_q;
  assign s_o[`S_TOKEN] = s_token_q;
  assign s_o[`S_FIRST] = s_first_q;
  assign s_o[`S_LAST] = s_last_q;
  assign s_o[`S_DATA] = s_data_q;

  function [7:0] sat8;
    input signed [15:0] y;
    sat8 = y > 16'sd127 ? 8'd127 : y < -16'sd127 ? 8'h81 : y[7:0];
  endfunction
  function [7:0] relu;
    input signed [15:0] y;
    input [7:0] thr;
    relu = y[15] ? 8'd0 : y > 16'sd255 ? 8'd255 : y[7:0] < thr ? 8'd0 : y[7:0];
  endfunction
  function [11:0] sat12;
    input signed [15:0] y;
    sat12 = y > 16'sd2047 ? 12'h7ff : y < -16'sd2048 ? 12'h800 : y[11:0];
  endfunction

  integer j;
  always @(posedge clk_i) begin
    valid11_q    <= valid10;
    final11_q    <= final10;
    dense11_q    <= to_token || (to_hidden && dense10);
    sparse11_q   <= to_hidden && !dense10;
    stream11_q   <= to_stream;
    mask_end11_q <= tile10_q[`T_MASK_END];
    mask11_q     <= tile10_q[`T_MASK];
    groups11_q   <= groups10;
    active11_q   <= active10;
    lane11_q     <= at10;
    dst11_q      <= dst10;
    logit11_q    <= y10[16*GROUPS-1:0];
    for (j = 0; j < N; j = j + 1)
      b11_q[8*j+:8] <= to_hidden && !gated10 ? relu(y10[16*j+:16], mult10[7:0]) : sat8(z10[16*j+:16]);

    // softmax
    s_valid_o <= valid10_q && kind10 == KIND_S[3:0];
    s_token_q <= token10_q + lane10;
    s_first_q <= tile10_q[`T_S_FIRST] && lane10_q == {LW{1'b0}};
    s_last_q  <= tile10_q[`T_S_LAST] && final10_q;
    for (j = 0; j < N; j = j + 1) s_data_q[12*j+:12] <= sat12(y10[16*j+:16]);
    if (!rst_ni) begin
      valid11_q <= 1'b0;
      s_valid_o <= 1'b0;
    end
  end
  wire [ROWS-1:0] word_end11;  // of any kind, for as many registers as a row has in its words
  rowvit_copies #(.N(ROWS)) u_word_end (
      .clk_i(clk_i), .d_i(rst_ni && valid10 && (&at10[2:0])), .q_o(word_end11)
  );

  // ---------------------------------------------------------------- stage 12: words and lines
  wire [N-1:0]       seg_valid;
  wire [LANES*N-1:0] seg_map;
  wire [64*N-1:0]    word12;
  rowvit_drain_words #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .valid_i(valid11_q), .dense_i(dense11_q), .sparse_i(sparse11_q), .active_i(active11_q),
      .place_i(lane11_q[LW-1:3]), .word_end_i(word_end11), .base_i(dst11_q), .data_i(b11_q),
      .p_feed_i(p_feed_i), .p_data_i(p_i[`P_DATA]), .p_keep_i(p_i[`P_KEEP]), .p_base_i(p_i[`P_BASE]),
      .p_closed_o(p_closed_o), .p_idle_o(p_idle_o),
      .word_o(word12), .seg_valid_o(seg_valid), .seg_map_o(seg_map),
      .tw_valid_o(tw_valid_o), .tw_addr_o(tw_addr_o), .tw_data_o(tw_data_o)
  );

  rowvit_drain_lines #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .AW(AW), .BANK_W(BANK_W)
  ) u_lines (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .key10_i(kind10 == DST_KEY[3:0]), .value10_i(kind10 == DST_VALUE[3:0]), .dst10_i(dst10[AW-1:0]),
      .token10_i(token10_q[AW-1:0]), .lane10_i(at10), .rows10_i(rows10),
      .valid11_i(valid11_q), .word_end11_i(word_end11[0]), .place11_i(lane11_q[LW-1:3]),
      .groups11_i(groups11_q), .data11_i(b11_q), .word12_i(word12),
      .ww_next_o(ww_next_o), .ww_valid_o(ww_valid_o), .ww_o(ww_o)
  );

  rowvit_drain_mask #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .DEPTH(MASK_DEPTH)
  ) u_mask (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .tile_end_i(valid11_q && sparse11_q && final11_q), .write_i(mask_end11_q), .base_i(mask11_q),
      .groups_i(groups11_q), .seg_valid_i(seg_valid), .seg_map_i(seg_map),
      .mask_read_i(mask_read_i), .mask_addr_i(mask_addr_i), .mask_data_o(mask_data_o)
  );

  // ---------------------------------------------------------------- records
  rowvit_drain_records #(
      .GROUPS(GROUPS)
  ) u_records (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .head_valid_i(valid10_q && to_stream), .head_first_i(first10_q), .head_group_i(sub10_q),
      .head_count_i(op10_q[`O_COUNT]), .head_last_i(op10_q[`O_LAST]), .head_tag_i(op10_q[`O_TAG]),
      .logit_valid_i(valid11_q && stream11_q), .logit_i(logit11_q),
      .mark_i(mark), .mark_tag_i(mark_tag), .cycles_i(cycles_i), .fires_i(fires_i),
      .marking_o(marking), .room_o(room), .mark_room_o(mark_room),
      .rec_valid_o(rec_valid_o), .rec_ready_i(rec_ready_i), .rec_data_o(rec_data_o),
      .rec_eor_o(rec_eor_o), .rec_last_o(rec_last_o)
  );
endmodule
`default_nettype wire
