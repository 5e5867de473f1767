// SPDX-License-Identifier: Apache-2.0
// Drain: reads the shadow accumulators lane by lane (all rows and groups at once), requantises, and
// writes each result in the order its consumer reads it: token memory rows, compressed hidden rows
// and the FFN2 mask, K^T lanes, V lines, residual sums, softmax, logits.
// Throughput ROWS*GROUPS results per cycle (gathered rows: GROUPS; logits: 1). Latency: REQUANTISE of
// hardware/pipeline.py, from a lane's read to its result.
`default_nettype none
module rowvit_drain #(
    parameter ROWS   = 2,
    parameter GROUPS = 3,
    parameter LANES  = 64,
    parameter AW     = 10,     // weight line address
    parameter PARAM_SLOTS = 4,   // lane tiles whose biases and multipliers are held
    parameter MASK_DEPTH = 256,  // words of LANES bits
    parameter BANK_W = 1         // bits of a row's number
) (
    input  wire                         clk_i,
    input  wire                         rst_ni,
    // tile descriptors
    input  wire                         tile_valid_i,
    output wire                         tile_ready_o,
    input  wire                         tile_null_i,
    input  wire                         tile_op_last_i,
    input  wire                         tile_pv_i,
    input  wire                         tile_s_i,
    input  wire [7:0]                   tile_groups_i,
    input  wire [ROWS-1:0]              tile_rows_i,
    input  wire [15:0]                  tile_band_i,
    input  wire [15:0]                  tile_dst_i,
    input  wire                         tile_gather_i,
    input  wire [16*ROWS-1:0]           tile_res_src_i,
    input  wire [BANK_W*ROWS-1:0]       tile_bank_i,
    input  wire                         tile_s_first_i,
    input  wire                         tile_s_last_i,
    input  wire [15:0]                  tile_token_i,
    input  wire                         tile_mask_end_i,
    input  wire [15:0]                  tile_mask_i,
    input  wire [511:0]                 instr_i,   // of the operation the tile belongs to
    // shadows
    input  wire                         captured_i,
    output reg                          release_o,
    input  wire [26*LANES*ROWS*GROUPS-1:0] shadow_i,
    // lane-tile parameters
    input  wire                         pw_valid_i,
    input  wire [7:0]                   pw_group_i,
    input  wire [7:0]                   pw_slot_i,
    input  wire [7:0]                   pw_lane_i,
    input  wire [47:0]                  pw_data_i,
    // softmax
    output reg                          s_valid_o,
    output reg  [15:0]                  s_token_o,
    output reg                          s_first_o,
    output reg                          s_last_o,
    output reg  [12*ROWS*GROUPS-1:0]    s_data_o,
    output wire                         recip_band_o,
    input  wire [17*ROWS*GROUPS-1:0]    recip_r_i,
    input  wire [5*ROWS*GROUPS-1:0]     recip_n_i,
    // probabilities to compressed segments (rowvit_drain_words.v)
    input  wire [ROWS-1:0]              p_feed_i,
    input  wire [8*ROWS*GROUPS-1:0]     p_data_i,
    input  wire [ROWS*GROUPS-1:0]       p_keep_i,
    input  wire [16*GROUPS-1:0]         p_base_i,
    output wire [ROWS*GROUPS-1:0]       p_closed_o,
    output wire                         p_idle_o,
    // token memory, never refused
    output wire [ROWS-1:0]              tw_valid_o,
    output wire [16*ROWS-1:0]           tw_addr_o,
    output wire [64*ROWS-1:0]           tw_data_o,
    // weight memory, never refused: every eight lanes of the line are ~ww_clear_o
    output wire                         ww_next_o,  // writes in the next cycle
    output reg  [GROUPS-1:0]            ww_valid_o,
    output reg  [AW-1:0]                ww_line_o,
    output reg  [LANES-1:0]             ww_be_o,
    output reg  [64*GROUPS-1:0]         ww_clear_o,
    // residual memory; read data two cycles after res_rd_o
    output reg                          res_rd_o,
    output reg  [15:0]                  res_raddr_o,
    input  wire [16*ROWS*GROUPS-1:0]    res_rdata_i,
    output reg  [ROWS*GROUPS-1:0]       res_we_o,
    output reg                          res_busy_o,  // any of them, if its row and group exist
    output reg  [15:0]                  res_waddr_o,
    output reg  [16*ROWS*GROUPS-1:0]    res_wdata_o,
    // FFN2 mask
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
    output reg  [15:0]                  done_o,
    output reg  [15:0]                  bands_o,
    output wire                         busy_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam LW = $clog2(LANES);
  localparam [3:0] K_S = 4'd6, K_O = 4'd7;  // kinds beyond DST_*
  // From the last lane's read to its last write: pipeline, compressor flush, mask, all groups.
  localparam DONE_LAT = DRAIN_DONE[8*GROUPS+:8];

  // A bank takes a word per cycle. In LANES cycles a tile makes GROUPS * (1 + LANES / 8) words at most; the
  // 2 * GROUPS that its end leaves behind go in the gaps of the next tile, before that one ends: for at most
  // MAX_GROUPS groups of 64 lanes, or 4 of fewer.
  generate
    if (GROUPS > (LANES == 64 ? MAX_GROUPS : 4)) begin : g_bad_groups
      illegal_parameter_drain_groups_must_be_at_most_6 u_bad ();
    end
  endgenerate

  // ---------------------------------------------------------------- descriptor queue
  wire [15:0] flags = instr_i[F_FLAGS+:16];
  wire [3:0]  in_kind = tile_s_i ? K_S : tile_pv_i ? K_O : instr_i[F_MATMUL_DST+:4];
  wire        attn_in = tile_s_i || tile_pv_i;
  wire [5:0]  in_shift = tile_s_i ? instr_i[F_ATTN_S_SHIFT+:6]
                       : tile_pv_i ? instr_i[F_ATTN_PV_SHIFT+:6] : instr_i[F_MATMUL_SHIFT+:6];
  // the multiplier of S, or the threshold of HIDDEN
  wire [15:0] in_mult = attn_in ? instr_i[F_ATTN_S_MULT+:16] : instr_i[F_MATMUL_THR+:16];
  wire        in_band_end = !tile_s_i;
  localparam DW = 3 + 4 + 6 + 16 + 8 + 8 + ROWS + 16 + 16 + 1 + 16 * ROWS + BANK_W * ROWS + 2 + 16 + 1
                + 16 + 1 + 2 + 12 + 16;
  wire        d_null, d_op_last, d_band_end, d_gather, d_s_first, d_s_last, d_mask_end, d_dense;
  wire        d_mark, d_last;
  wire [3:0]  d_kind;
  wire [5:0]  d_shift;
  wire [15:0] d_mult, d_band, d_dst, d_token, d_mask, d_count;
  wire [7:0]  d_pslot, d_groups;
  wire [11:0] d_tag;  // tag and image
  wire [ROWS-1:0] d_rows;
  wire [16*ROWS-1:0] d_res_src;
  wire [BANK_W*ROWS-1:0] d_bank;
  wire        d_valid, d_pop;
  rowvit_fifo #(
      .WIDTH(DW),
      .DEPTH(TILE_QUEUE)
  ) u_desc (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(tile_valid_i), .in_ready_o(tile_ready_o),
      .in_data_i({tile_null_i, tile_op_last_i, in_band_end, in_kind, in_shift, in_mult,
                  instr_i[F_MATMUL_PSLOT+:8], tile_groups_i, tile_rows_i, tile_band_i, tile_dst_i,
                  tile_gather_i, tile_res_src_i, tile_bank_i, tile_s_first_i, tile_s_last_i,
                  tile_token_i, tile_mask_end_i, tile_mask_i, instr_i[F_MATMUL_MASK_BANDS+:16] == 16'd0,
                  flags[FLAG_MARK] && !flags[FLAG_VOID] && tile_op_last_i, !attn_in && flags[FLAG_LAST],
                  instr_i[F_IMAGE+:12], instr_i[F_MATMUL_COUNT+:16]}),
      .out_valid_o(d_valid), .out_ready_i(d_pop),
      .out_data_o({d_null, d_op_last, d_band_end, d_kind, d_shift, d_mult, d_pslot, d_groups, d_rows,
                   d_band, d_dst, d_gather, d_res_src, d_bank, d_s_first, d_s_last, d_token,
                   d_mask_end, d_mask, d_dense, d_mark, d_last, d_tag, d_count}),
      .count_o()
  );

  // ---------------------------------------------------------------- lane counter (stage 0)
  reg  [DONE_LAT-1:0] delay_q;  // completion of each tile on its way to the event it causes
  wire          marking;        // a MARK record is half written
  reg           captured_q;
  reg           run_q;
  reg  [LW-1:0] lane_q;
  reg  [7:0]    sub_q;    // row (gathered rows) or group (logits) when these go one by one
  reg  [7:0]    last_sub_q;
  reg           stream_q;
  wire          stream   = d_kind == DST_STREAM[3:0];
  wire          room, mark_room;  // records: space for what is in the pipeline
  wire          step     = run_q && (!stream_q || room);
  wire          lane_end = lane_q == LANES[LW-1:0] - 1'b1;
  wire          sub_end  = sub_q == last_sub_q;
  wire          tile_end = step && lane_end && sub_end;
  // A LOGITS record starts when no MARK record can come in between any more; K^T waits for V's last lines.
  reg  [7:0]    values_q;  // a tile of V has ended
  wire          hold     = (stream && (|delay_q || marking))
                           || (d_kind == DST_KEY[3:0] && |values_q);
  wire          hold_mark = d_mark && !mark_room;
  // Null tiles come faster than their events leave.
  wire [3:0]    ev_count;  // without that of the cycle before
  wire          ev_room = ev_count < TILE_QUEUE[3:0] - 4'd1;
  wire          begin_tile = d_valid && !d_null && !run_q && (captured_q || captured_i) && !hold && !hold_mark
                             && ev_room;
  wire          null_tile  = d_valid && d_null && !run_q && !hold_mark && ev_room;
  assign d_pop = tile_end || null_tile;
  reg  [7:0]    last_row;
  integer       b;
  always @* begin
    last_row = 8'd0;
    for (b = 1; b < ROWS; b = b + 1) if (d_rows[b]) last_row = b[7:0];
  end
  // release_o comes a cycle later; CAPTURE - 1 cycles after the next tile's last scalar fires its
  // shadows are written. They are read a cycle after lane_q names the lane.
  wire          near_end = step && sub_end && lane_q == LANES[LW-1:0] - CAPTURE[LW-1:0] + 1'b1;
  always @(posedge clk_i) begin
    // A cycle after near_end; logits may wait for room to the last lane.
    release_o <= stream_q ? tile_end : near_end;
    values_q <= {values_q[6:0], tile_end && d_kind == DST_VALUE[3:0]};
    captured_q <= (captured_q || captured_i) && !begin_tile;
    run_q <= begin_tile || (run_q && !tile_end);
    if (!run_q) begin  // whether a tile begins or not, which is known late
      lane_q     <= {LW{1'b0}};
      sub_q      <= 8'd0;
      last_sub_q <= stream ? d_groups - 8'd1 : d_gather ? last_row : 8'd0;
      stream_q   <= stream;
    end else if (step) begin
      if (stream_q) begin
        sub_q <= sub_end ? 8'd0 : sub_q + 8'd1;
        if (sub_end) lane_q <= lane_q + 1'b1;
      end else begin
        lane_q <= lane_q + 1'b1;
        if (lane_end) sub_q <= sub_q + 8'd1;
      end
    end
    if (!rst_ni) begin
      release_o  <= 1'b0;
      run_q      <= 1'b0;
      captured_q <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- stages 1 to 3: accumulators, parameters
  localparam PAW = $clog2(PARAM_SLOTS * LANES);
  reg  [3:1]      own_q;  // neither S nor O: bias and multiplier are the lane's own
  reg  [2:1]      output_q;  // O: multiplier and shift come from the softmax
  reg  [2:1]      band_q, odd_q;
  reg  [6*2-1:0]  shift_q;
  reg  [16*2-1:0] mult_q;
  reg  [6*N-1:0]  shift3_q;
  reg  [17*N-1:0] mult3_q;
  reg  [26*N-1:0] acc3_q;
  wire [42*GROUPS-1:0] param3;
  assign recip_band_o = band_q[2];
  always @(posedge clk_i) begin
    own_q    <= {own_q[2:1], d_kind != K_O && d_kind != K_S};
    output_q <= {output_q[1], d_kind == K_O};
    band_q   <= {band_q[1], d_band[0]};
    odd_q    <= {odd_q[1], lane_q[0]};
    shift_q  <= {shift_q[5:0], d_shift};
    mult_q   <= {mult_q[15:0], d_mult};
  end

  genvar r, g, i;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_param
      // 36 bits are half a block RAM, the other six go into LUTs
      wire mine = pw_valid_i && pw_group_i == g;
      wire [PAW-1:0] waddr = {pw_slot_i[PAW-LW-1:0], pw_lane_i[LW-1:0]};
      // Per group, as many memories hang on it. Tools merge equal registers unless told not to: Vivado by
      // the register's attribute, Yosys by that of the block.
      (* keep = "true" *) reg [PAW-1:0] raddr1_q;
      (* keep = "true" *) always @(posedge clk_i) raddr1_q <= {d_pslot[PAW-LW-1:0], lane_q};
      rowvit_sdp_ram #(
          .WIDTH(36),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW),
          .OUT_REG(1)
      ) u_low (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i({pw_data_i[41:32], pw_data_i[25:0]}),
          .re_i(1'b1), .raddr_i(raddr1_q), .rdata_o(param3[42*g+:36])
      );
      rowvit_sdp_ram #(
          .WIDTH(6),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW),
          .RAM_STYLE("distributed"),
          .OUT_REG(1)
      ) u_high (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i(pw_data_i[47:42]),
          .re_i(1'b1), .raddr_i(raddr1_q), .rdata_o(param3[42*g+36+:6])
      );
    end
    for (i = 0; i < N; i = i + 1) begin : g_shadow
      // Pairs on multiples of 64 bits, which multiplexers select without a shifter.
      wire [32*LANES-1:0] mine;
      for (g = 0; g < LANES / 2; g = g + 1) begin : g_pair
        assign mine[64*g+:64] = {12'd0, shadow_i[52*(i*LANES/2+g)+:52]};
      end
      // The number of the lane's pair: two copies, as each drives a multiplexer of half the bits.
      (* keep = "true" *) reg [LW-2:0] low1_q, high1_q;
      reg  [51:0] pair_q;  // shadow bits, see rowvit_mac_pair.v
      wire [8:0]  wraps = pair_q[51:43] - {8'd0, pair_q[16]};
      (* keep = "true" *) always @(posedge clk_i) low1_q <= lane_q[LW-1:1];
      (* keep = "true" *) always @(posedge clk_i) high1_q <= lane_q[LW-1:1];
      always @(posedge clk_i) begin
        pair_q[25:0]  <= mine[64*low1_q+:26];
        pair_q[51:26] <= mine[64*high1_q+26+:26];
        acc3_q[26*i+:26] <= odd_q[2] ? pair_q[42:17] - {{17{wraps[8]}}, wraps} : {wraps, pair_q[16:0]};
        shift3_q[6*i+:6] <= shift_q[11:6] + (output_q[2] ? {1'b0, recip_n_i[5*i+:5]} : 6'd0);
        mult3_q[17*i+:17] <= output_q[2] ? recip_r_i[17*i+:17] : {1'b0, mult_q[31:16]};
      end
    end
  endgenerate

  // ---------------------------------------------------------------- stages 4 to 10: requantisation
  wire [16*N-1:0] y10;
  generate
    for (i = 0; i < N; i = i + 1) begin : g_requant
      wire [41:0] prm = param3[42*(i%GROUPS)+:42];
      rowvit_requant u_requant (
          .clk_i  (clk_i),
          .acc_i  (acc3_q[26*i+:26]),
          .bias_i (own_q[3] ? prm[25:0] : 26'd0),
          .mult_i (own_q[3] ? {1'b0, prm[41:26]} : mult3_q[17*i+:17]),
          .shift_i(shift3_q[6*i+:6]),
          .y_o    (y10[16*i+:16])
      );
    end
  endgenerate

  // Alongside them: which lane it is. A tile has more lanes than the pipeline has stages, so that the
  // head of the queue still describes the tile whose first lane is in stage 9.
  reg [9:1]      valid_q, first_q, final_q;
  reg [LW*9-1:0] lanes_q;
  reg [8*9-1:0]  subs_q;
  wire           first0 = lane_q == {LW{1'b0}} && sub_q == 8'd0;
  reg            valid10_q, first10_q, final10_q;
  reg [LW-1:0]   lane10_q;
  reg [7:0]      sub10_q;
  reg [3:0]      kind10_q;
  reg            gather10_q, s_first10_q, s_last10_q, mask_end10_q, dense10_q, last10_q;
  reg [15:0]     dst10_q, token10_q, mask10_q, count10_q;
  reg [7:0]      thr10_q, groups10_q;
  reg [11:0]     tag10_q;
  reg [ROWS-1:0] rows10_q;
  always @(posedge clk_i) begin
    valid_q <= {valid_q[8:1], step};
    first_q <= {first_q[8:1], first0};
    final_q <= {final_q[8:1], tile_end};
    lanes_q <= {lanes_q[LW*8-1:0], lane_q};
    subs_q  <= {subs_q[8*8-1:0], sub_q};
    valid10_q <= valid_q[9];
    first10_q <= first_q[9];
    final10_q <= final_q[9];
    lane10_q  <= lanes_q[LW*8+:LW];
    sub10_q   <= subs_q[8*8+:8];
    if (valid_q[9] && first_q[9]) begin
      kind10_q   <= d_kind;
      gather10_q <= d_gather;
      {s_first10_q, s_last10_q, mask_end10_q} <= {d_s_first, d_s_last, d_mask_end};
      {dense10_q, last10_q} <= {d_dense, d_last};
      {dst10_q, mask10_q, count10_q} <= {d_dst, d_mask, d_count};
      // S: token of lane 0; K and V: token of row 0
      token10_q  <= d_kind == K_S ? d_token : {d_band[15-BANK_W:0], {BANK_W{1'b0}}};
      {thr10_q, groups10_q, tag10_q, rows10_q} <= {d_mult[7:0], d_groups, d_tag, d_rows};
    end
    if (!rst_ni) {valid_q, valid10_q} <= 10'd0;
  end

  // ---------------------------------------------------------------- stages 6 to 10: residual memory
  // The sum before, read early enough to meet y10. The next read of a word that is written in stage 11
  // comes LANES cycles later.
  reg            to_res6_q, gather6_q;
  reg [BANK_W-1:0] bank6_q;
  reg [15:0]     base6_q;
  reg [9:7]      gathers_q;
  reg [3*BANK_W-1:0] banks_q;  // of stages 9 to 7
  reg [16*N-1:0] old10_q;
  wire [LW-1:0]  lane5 = lanes_q[LW*4+:LW];
  wire [15:0]    lane6 = {{(16 - LW) {1'b0}}, lanes_q[LW*5+:LW]};
  wire [BANK_W-1:0] row5 = subs_q[8*4+:BANK_W];
  wire [BANK_W-1:0] bank9 = banks_q[2*BANK_W+:BANK_W];
  always @(posedge clk_i) begin
    if (valid_q[5] && lane5 == {LW{1'b0}}) begin
      to_res6_q <= d_kind == DST_RESIDUAL[3:0];
      gather6_q <= d_gather;
      bank6_q   <= d_bank[BANK_W*row5+:BANK_W];
      base6_q   <= d_gather ? d_res_src[16*row5+:16] : d_dst;
    end
    res_rd_o    <= valid_q[6] && to_res6_q;
    res_raddr_o <= base6_q + lane6;
    gathers_q   <= {gathers_q[8:7], gather6_q};
    banks_q     <= {banks_q[2*BANK_W-1:0], bank6_q};
    if (!rst_ni) res_rd_o <= 1'b0;
  end
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_old_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_old
        localparam I = r * GROUPS + g;
        wire [16*ROWS-1:0] sums;  // of the group
        for (i = 0; i < ROWS; i = i + 1) begin : g_bank
          assign sums[16*i+:16] = res_rdata_i[16*(i*GROUPS+g)+:16];
        end
        always @(posedge clk_i)
          old10_q[16*I+:16] <= gathers_q[9] ? sums[16*bank9+:16] : sums[16*r+:16];
      end
    end
  endgenerate

  // ---------------------------------------------------------------- stage 10: destinations
  wire to_token  = kind10_q == DST_TOKEN[3:0] || kind10_q == K_O;
  wire to_hidden = kind10_q == DST_HIDDEN[3:0];
  wire to_key    = kind10_q == DST_KEY[3:0];
  wire to_value  = kind10_q == DST_VALUE[3:0];
  wire to_res    = kind10_q == DST_RESIDUAL[3:0];
  wire to_stream = kind10_q == DST_STREAM[3:0];
  wire [15:0] lane10 = {{(16 - LW) {1'b0}}, lane10_q};
  wire [BANK_W-1:0] row_sel = sub10_q[BANK_W-1:0];

  reg [N-1:0] active10;
  integer a;
  always @* for (a = 0; a < N; a = a + 1) active10[a] = rows10_q[a/GROUPS] && (a % GROUPS) < groups10_q;

  // ---------------------------------------------------------------- stage 11: results
  reg            valid11_q, final11_q, dense11_q, sparse11_q, key11_q, value11_q, stream11_q;
  reg            mask_end11_q;
  reg [N-1:0]    active11_q;
  reg [15:0]     dst11_q, mask11_q;
  reg [7:0]      groups11_q;
  reg [LW-1:0]   lane11_q, key_lane11_q;
  reg [ROWS-1:0] rows11_q;
  reg [AW-1:0]   line11_q;
  reg [16*GROUPS-1:0] logit11_q;
  reg [8*N-1:0]  b11_q;    // int8, or uint8 after ReLU

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
    valid11_q    <= valid10_q;
    final11_q    <= final10_q;
    dense11_q    <= to_token || (to_hidden && dense10_q);
    sparse11_q   <= to_hidden && !dense10_q;
    key11_q      <= to_key;
    value11_q    <= to_value;
    stream11_q   <= to_stream;
    mask_end11_q <= mask_end10_q;
    mask11_q     <= mask10_q;
    groups11_q   <= groups10_q;
    active11_q   <= active10;
    lane11_q     <= lane10_q;
    dst11_q      <= dst10_q;
    logit11_q    <= y10[16*GROUPS-1:0];
    for (j = 0; j < N; j = j + 1)
      b11_q[8*j+:8] <= to_hidden ? relu(y10[16*j+:16], thr10_q) : sat8(y10[16*j+:16]);

    // softmax
    s_valid_o <= valid10_q && kind10_q == K_S;
    s_token_o <= token10_q + lane10;
    s_first_o <= s_first10_q && lane10_q == {LW{1'b0}};
    s_last_o  <= s_last10_q && final10_q;
    for (j = 0; j < N; j = j + 1) s_data_o[12*j+:12] <= sat12(y10[16*j+:16]);

    // K^T: all rows into neighbouring lanes of line c; V: row 0's line
    rows11_q     <= rows10_q;
    key_lane11_q <= token10_q[LW-1:0];
    line11_q     <= dst10_q[AW-1:0] + (to_key ? {token10_q[AW-1:LW], {LW{1'b0}}} + lane10[AW-1:0]
                                              : token10_q[AW-1:0]);
    if (!rst_ni) begin
      valid11_q <= 1'b0;
      s_valid_o <= 1'b0;
    end
  end

  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_res_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_res
        localparam I = r * GROUPS + g;
        wire signed [16:0] sum = {old10_q[16*I+15], old10_q[16*I+:16]} + {y10[16*I+15], y10[16*I+:16]};
        always @(posedge clk_i) begin
          res_we_o[I] <= valid10_q && to_res && active10[I] && (!gather10_q || row_sel == r);
          res_wdata_o[16*I+:16] <= sum[16] == sum[15] ? sum[15:0] : {sum[16], {15{~sum[16]}}};
          if (!rst_ni) res_we_o[I] <= 1'b0;
        end
      end
    end
  endgenerate
  always @(posedge clk_i) begin
    res_busy_o <= valid10_q && to_res;
    res_waddr_o <= dst10_q + lane10;
    if (!rst_ni) res_busy_o <= 1'b0;
  end

  // ---------------------------------------------------------------- stage 12: weight lines
  // K^T: a lane of all rows. V: a word of eight lanes is complete for all rows at once; they go to their
  // lines one after the other, which takes no longer than the next word.
  wire [64*N-1:0] word12;
  wire [ROWS-1:0] word_end11;  // of any kind, for as many registers as a row has in its words
  rowvit_copies #(.N(ROWS)) u_word_end (
      .clk_i(clk_i), .d_i(rst_ni && valid10_q && (&lane10_q[2:0])), .q_o(word_end11)
  );
  wire            word_end = word_end11[0] && value11_q;
  reg             word_q;       // a row's word goes
  reg [ROWS-1:0]  word_rows_q;  // the rows that are left, of which the first has this turn
  reg [BANK_W-1:0] word_row_q;
  reg [AW-1:0]    word_line_q;
  reg [LW-4:0]    word_lane_q;
  reg [7:0]       word_groups_q;
  wire            word_last = word_rows_q == {{(ROWS - 1) {1'b0}}, 1'b1};
  wire            key11 = valid11_q && key11_q;
  // The odd lane of a pair is less by one where the even lane is negative (rowvit_mac_pair.v).
  reg [64*GROUPS-1:0] lanes12;
  reg [7:0]           even12, odd12;
  integer p, q, t;
  always @*
    for (p = 0; p < GROUPS; p = p + 1)
      for (q = 0; q < 8; q = q + 2) begin
        even12 = word_q ? 8'd0 : b11_q[8*(q%ROWS*GROUPS+p)+:8];
        odd12  = word_q ? 8'd0 : b11_q[8*((q+1)%ROWS*GROUPS+p)+:8];
        for (t = 0; t < ROWS; t = t + 1)
          if (word_q && word_row_q == t[BANK_W-1:0]) begin
            even12 = even12 | word12[64*(t*GROUPS+p)+8*q+:8];
            odd12  = odd12 | word12[64*(t*GROUPS+p)+8*q+8+:8];
          end
        lanes12[64*p+8*q+:8]   = even12;
        lanes12[64*p+8*q+8+:8] = odd12 - {7'd0, even12[7]};
      end
  wire [7:0] ww_groups = word_q ? word_groups_q : groups11_q;
  assign ww_next_o = key11 || word_q;
  always @(posedge clk_i) begin
    if (word_end) begin
      word_rows_q   <= rows11_q;
      word_row_q    <= {BANK_W{1'b0}};
      word_line_q   <= line11_q;
      word_lane_q   <= lane11_q[LW-1:3];
      word_groups_q <= groups11_q;
    end else begin
      word_rows_q <= word_rows_q >> 1;
      word_row_q  <= word_row_q + 1'b1;
      word_line_q <= word_line_q + 1'b1;
    end
    if (word_end) word_q <= 1'b1;
    else if (word_last) word_q <= 1'b0;
    for (j = 0; j < GROUPS; j = j + 1) begin
      ww_valid_o[j] <= ww_next_o && j < ww_groups;
      ww_clear_o[64*j+:64] <= ww_next_o ? ~lanes12[64*j+:64] : 64'd0;
    end
    ww_be_o   <= word_q ? {{(LANES - 8) {1'b0}}, 8'hff} << {word_lane_q, 3'd0}
                        : {{(LANES - ROWS) {1'b0}}, rows11_q} << key_lane11_q;
    ww_line_o <= word_q ? word_line_q : line11_q;
    if (!rst_ni) begin
      word_q <= 1'b0;
      ww_valid_o <= {GROUPS{1'b0}};
    end
  end

  // ---------------------------------------------------------------- token memory words, FFN2 mask
  wire [N-1:0]       seg_valid;
  wire [LANES*N-1:0] seg_map;
  rowvit_drain_words #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .valid_i(valid11_q), .dense_i(dense11_q), .sparse_i(sparse11_q), .active_i(active11_q),
      .place_i(lane11_q[LW-1:3]), .word_end_i(word_end11), .base_i(dst11_q), .data_i(b11_q),
      .p_feed_i(p_feed_i), .p_data_i(p_data_i), .p_keep_i(p_keep_i), .p_base_i(p_base_i),
      .p_closed_o(p_closed_o), .p_idle_o(p_idle_o),
      .word_o(word12), .seg_valid_o(seg_valid), .seg_map_o(seg_map),
      .tw_valid_o(tw_valid_o), .tw_addr_o(tw_addr_o), .tw_data_o(tw_data_o)
  );

  rowvit_drain_mask #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .DEPTH(MASK_DEPTH)
  ) u_mask (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .tile_end_i(valid11_q && sparse11_q && final11_q), .write_i(mask_end11_q), .base_i(mask11_q),
      .groups_i(groups11_q), .seg_valid_i(seg_valid), .seg_map_i(seg_map),
      .mask_addr_i(mask_addr_i), .mask_data_o(mask_data_o)
  );

  // ---------------------------------------------------------------- completion events
  wire       ev_valid;
  wire       ev_band, ev_op, ev_mark;
  wire [11:0] ev_tag;
  wire [15:0] ev_bandno;
  wire       ev_out = delay_q[DONE_LAT-1] && ev_valid;
  reg  [30:0] event_q;
  always @(posedge clk_i) event_q <= {d_band_end && !d_null, d_op_last, d_mark, d_tag, d_band};
  rowvit_fifo #(
      .WIDTH(31),
      .DEPTH(TILE_QUEUE)
  ) u_events (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(delay_q[0]), .in_ready_o(), .in_data_i(event_q),
      .out_valid_o(ev_valid), .out_ready_i(delay_q[DONE_LAT-1]),
      .out_data_o({ev_band, ev_op, ev_mark, ev_tag, ev_bandno}), .count_o(ev_count)
  );
  always @(posedge clk_i) begin
    delay_q <= {delay_q[DONE_LAT-2:0], d_pop};
    if (ev_out && ev_band) bands_o <= ev_bandno + 16'd1;
    if (ev_out && ev_op) begin
      done_o  <= done_o + 16'd1;
      bands_o <= 16'd0;
    end
    if (!rst_ni) begin
      delay_q <= {DONE_LAT{1'b0}};
      done_o  <= 16'd0;
      bands_o <= 16'd0;
    end
  end
  assign busy_o = run_q || d_valid || |delay_q;

  // ---------------------------------------------------------------- records
  rowvit_drain_records #(
      .GROUPS(GROUPS)
  ) u_records (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .head_valid_i(valid10_q && to_stream), .head_first_i(first10_q), .head_group_i(sub10_q),
      .head_count_i(count10_q), .head_last_i(last10_q), .head_tag_i(tag10_q),
      .logit_valid_i(valid11_q && stream11_q), .logit_i(logit11_q),
      .mark_i(ev_out && ev_mark), .mark_tag_i(ev_tag), .cycles_i(cycles_i), .fires_i(fires_i),
      .marking_o(marking), .room_o(room), .mark_room_o(mark_room),
      .rec_valid_o(rec_valid_o), .rec_ready_i(rec_ready_i), .rec_data_o(rec_data_o),
      .rec_eor_o(rec_eor_o), .rec_last_o(rec_last_o)
  );
endmodule
`default_nettype wire
