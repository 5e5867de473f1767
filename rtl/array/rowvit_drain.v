// SPDX-License-Identifier: Apache-2.0
// Drain: reads the shadow accumulators lane by lane (all rows and groups at once), requantises, and
// writes each result in the order its consumer reads it: token memory rows, compressed hidden rows
// and the FFN2 mask, K^T lanes, V lines, residual sums, softmax, logits.
// Throughput ROWS*GROUPS results per cycle (V and gathered rows: GROUPS; logits: 1). Latency 8.
// Resources at 2 x 3, parts included: 6 DSP48E1, about 8.4k LUT (a third the shadow multiplexers), 4k FF,
// 2.5 RAMB36.
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
    // token memory, never refused
    output wire [ROWS-1:0]              tw_valid_o,
    output wire [16*ROWS-1:0]           tw_addr_o,
    output wire [64*ROWS-1:0]           tw_data_o,
    // weight memory, never refused: every lane pair of the line is ~ww_clear_o
    output wire                         ww_next_o,  // writes in the next cycle
    output reg  [GROUPS-1:0]            ww_valid_o,
    output reg  [AW-1:0]                ww_line_o,
    output reg  [LANES-1:0]             ww_be_o,
    output reg  [16*GROUPS-1:0]         ww_clear_o,
    // residual memory; read data one cycle after rd_valid_o
    output wire                         res_rd_o,
    output wire [15:0]                  res_raddr_o,
    input  wire [16*ROWS*GROUPS-1:0]    res_rdata_i,
    output reg  [ROWS*GROUPS-1:0]       res_we_o,
    output reg  [15:0]                  res_waddr_o,
    output reg  [16*ROWS*GROUPS-1:0]    res_wdata_o,
    // FFN2 mask
    input  wire [15:0]                  mask_addr_i,
    output wire [LANES-1:0]             mask_data_o,
    // records: {eor, last, word}
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
  // 2 * GROUPS that its end leaves behind go in the gaps of the next tile, before that one ends.
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
                + 16 + 1 + 2 + 8 + 16 + 16;
  wire        d_null, d_op_last, d_band_end, d_gather, d_s_first, d_s_last, d_mask_end, d_dense;
  wire        d_mark, d_last;
  wire [3:0]  d_kind;
  wire [5:0]  d_shift;
  wire [15:0] d_mult, d_band, d_dst, d_token, d_mask, d_count, d_total;
  wire [7:0]  d_pslot, d_groups, d_tag;
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
                  instr_i[F_TAG+:8], instr_i[F_MATMUL_COUNT+:16],
                  attn_in ? 16'd0 : instr_i[F_MATMUL_TOTAL+:16]}),
      .out_valid_o(d_valid), .out_ready_i(d_pop),
      .out_data_o({d_null, d_op_last, d_band_end, d_kind, d_shift, d_mult, d_pslot, d_groups, d_rows,
                   d_band, d_dst, d_gather, d_res_src, d_bank, d_s_first, d_s_last, d_token,
                   d_mask_end, d_mask, d_dense, d_mark, d_last, d_tag, d_count, d_total}),
      .count_o()
  );

  // ---------------------------------------------------------------- lane counter (stage 0)
  reg  [DONE_LAT-1:0] delay_q;  // completion of each tile on its way to the event it causes
  wire          marking;        // a MARK record is half written
  reg           captured_q;
  reg           run_q;
  reg  [LW-1:0] lane_q;
  reg  [7:0]    sub_q;    // row (V, gathered rows) or group (logits) when these go one by one
  wire          stream   = d_kind == DST_STREAM[3:0];
  wire          by_row   = d_kind == DST_VALUE[3:0] || d_gather;
  wire          room;     // records: space for what is in the pipeline
  wire          step     = run_q && (!stream || room);
  wire          lane_end = lane_q == LANES[LW-1:0] - 1'b1;
  wire          sub_end  = stream ? sub_q == d_groups - 8'd1
                                  : !by_row || sub_q == ROWS[7:0] - 8'd1 || !d_rows[1];
  wire          tile_end = step && lane_end && sub_end;
  // A LOGITS record starts when no MARK record can come in between any more.
  wire          hold     = stream && d_total != 16'd0 && (|delay_q || marking);
  wire          begin_tile = d_valid && !d_null && !run_q && (captured_q || captured_i) && !hold;
  // Null tiles come faster than their events leave.
  wire          ev_room;
  wire          null_tile  = d_valid && d_null && !run_q && ev_room;
  assign d_pop = tile_end || null_tile;
  // release_o comes a cycle later; CAPTURE - 1 cycles after the next tile's last scalar fires its
  // shadows are written.
  wire          near_end = step && sub_end && lane_q == LANES[LW-1:0] - CAPTURE[LW-1:0];
  always @(posedge clk_i) begin
    // A cycle after near_end; logits may wait for room to the last lane.
    release_o <= stream ? tile_end : near_end;
    if (captured_i) captured_q <= 1'b1;
    if (begin_tile) begin
      run_q      <= 1'b1;
      captured_q <= 1'b0;
      lane_q     <= {LW{1'b0}};
      sub_q      <= 8'd0;
    end else if (step) begin
      if (stream) begin
        sub_q <= sub_end ? 8'd0 : sub_q + 8'd1;
        if (sub_end) lane_q <= lane_q + 1'b1;
      end else begin
        lane_q <= lane_q + 1'b1;
        if (lane_end) sub_q <= sub_q + 8'd1;
      end
      if (tile_end) run_q <= 1'b0;
    end
    if (!rst_ni) begin
      release_o  <= 1'b0;
      run_q      <= 1'b0;
      captured_q <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- stage 1: accumulators, parameters
  localparam PAW = $clog2(PARAM_SLOTS * LANES);
  reg  [52*N-1:0] pair1_q;  // shadow bits of the lane's pair, see rowvit_mac_pair.v
  reg             odd1_q;
  reg  [6*N-1:0]  shift1_q;
  reg  [17*N-1:0] mult1_q;
  reg             use_param1_q;
  wire [42*GROUPS-1:0] param1;
  assign recip_band_o = d_band[0];

  genvar r, g, i;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_param
      // 36 bits are half a block RAM, the other six go into LUTs
      wire mine = pw_valid_i && pw_group_i == g;
      wire [PAW-1:0] waddr = {pw_slot_i[PAW-LW-1:0], pw_lane_i[LW-1:0]};
      wire [PAW-1:0] raddr = {d_pslot[PAW-LW-1:0], lane_q};
      rowvit_sdp_ram #(
          .WIDTH(36),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW)
      ) u_low (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i({pw_data_i[41:32], pw_data_i[25:0]}),
          .re_i(step), .raddr_i(raddr), .rdata_o(param1[42*g+:36])
      );
      rowvit_sdp_ram #(
          .WIDTH(6),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW),
          .RAM_STYLE("distributed")
      ) u_high (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i(pw_data_i[47:42]),
          .re_i(step), .raddr_i(raddr), .rdata_o(param1[42*g+36+:6])
      );
    end
    for (i = 0; i < N; i = i + 1) begin : g_shadow
      wire [26*LANES-1:0] mine = shadow_i[26*LANES*i+:26*LANES];
      always @(posedge clk_i) begin
        pair1_q[52*i+:52] <= mine[52*lane_q[LW-1:1]+:52];
        shift1_q[6*i+:6] <= d_kind == K_O ? d_shift + {1'b0, recip_n_i[5*i+:5]} : d_shift;
        mult1_q[17*i+:17] <= d_kind == K_O ? recip_r_i[17*i+:17] : {1'b0, d_mult};
      end
    end
  endgenerate
  always @(posedge clk_i) begin
    use_param1_q <= d_kind != K_O && d_kind != K_S;
    odd1_q       <= lane_q[0];
  end

  // ---------------------------------------------------------------- stages 2 to 6: requantisation
  wire [16*N-1:0] y6;
  generate
    for (i = 0; i < N; i = i + 1) begin : g_requant
      wire [41:0] prm = param1[42*(i%GROUPS)+:42];
      wire [51:0] pair = pair1_q[52*i+:52];
      wire [8:0]  wraps = pair[51:43] - {8'd0, pair[16]};
      wire [25:0] acc = odd1_q ? pair[42:17] - {{17{wraps[8]}}, wraps} : {wraps, pair[16:0]};
      rowvit_requant u_requant (
          .clk_i  (clk_i),
          .acc_i  (acc),
          .bias_i (use_param1_q ? prm[25:0] : 26'd0),
          .mult_i (use_param1_q ? {1'b0, prm[41:26]} : mult1_q[17*i+:17]),
          .shift_i(shift1_q[6*i+:6]),
          .y_o    (y6[16*i+:16])
      );
    end
  endgenerate

  // Alongside them: which lane it is. A tile has more lanes than the pipeline has stages, so that the
  // head of the queue still describes the tile whose first lane is in stage 5.
  reg [5:1]      valid_q, first_q, final_q;
  reg [LW*5-1:0] lanes_q;
  reg [8*5-1:0]  subs_q;
  wire           first0 = lane_q == {LW{1'b0}} && sub_q == 8'd0;
  reg            valid6_q, final6_q;
  reg [LW-1:0]   lane6_q;
  reg [7:0]      sub6_q;
  reg [3:0]      kind6_q;
  reg            gather6_q, s_first6_q, s_last6_q, mask_end6_q, dense6_q, last6_q;
  reg [15:0]     dst6_q, token6_q, mask6_q, count6_q, total6_q;
  reg [7:0]      thr6_q, groups6_q, tag6_q;
  reg [ROWS-1:0] rows6_q;
  reg [16*ROWS-1:0] res_src6_q;
  reg [BANK_W*ROWS-1:0] bank6_q;
  always @(posedge clk_i) begin
    valid_q <= {valid_q[4:1], step};
    first_q <= {first_q[4:1], first0};
    final_q <= {final_q[4:1], tile_end};
    lanes_q <= {lanes_q[LW*4-1:0], lane_q};
    subs_q  <= {subs_q[8*4-1:0], sub_q};
    valid6_q <= valid_q[5];
    final6_q <= final_q[5];
    lane6_q  <= lanes_q[LW*4+:LW];
    sub6_q   <= subs_q[8*4+:8];
    if (valid_q[5] && first_q[5]) begin
      kind6_q   <= d_kind;
      gather6_q <= d_gather;
      {s_first6_q, s_last6_q, mask_end6_q} <= {d_s_first, d_s_last, d_mask_end};
      {dense6_q, last6_q} <= {d_dense, d_last};
      {dst6_q, mask6_q, count6_q, total6_q} <= {d_dst, d_mask, d_count, d_total};
      // S: token of lane 0; K and V: token of row 0
      token6_q  <= d_kind == K_S ? d_token : {d_band[14:0], 1'b0};
      {thr6_q, groups6_q, tag6_q, rows6_q} <= {d_mult[7:0], d_groups, d_tag, d_rows};
      {res_src6_q, bank6_q} <= {d_res_src, d_bank};
    end
    if (!rst_ni) {valid_q, valid6_q} <= 6'd0;
  end

  // ---------------------------------------------------------------- stage 6: addresses
  wire to_token  = kind6_q == DST_TOKEN[3:0] || kind6_q == K_O;
  wire to_hidden = kind6_q == DST_HIDDEN[3:0];
  wire to_key    = kind6_q == DST_KEY[3:0];
  wire to_value  = kind6_q == DST_VALUE[3:0];
  wire to_res    = kind6_q == DST_RESIDUAL[3:0];
  wire to_stream = kind6_q == DST_STREAM[3:0];
  wire [15:0] lane6 = {{(16 - LW) {1'b0}}, lane6_q};
  wire        row_sel = sub6_q[0];
  assign res_rd_o    = valid6_q && to_res;
  assign res_raddr_o = (gather6_q ? (row_sel ? res_src6_q[31:16] : res_src6_q[15:0]) : dst6_q) + lane6;

  reg [N-1:0] active6;
  integer a;
  always @* for (a = 0; a < N; a = a + 1) active6[a] = rows6_q[a/GROUPS] && (a % GROUPS) < groups6_q;

  // ---------------------------------------------------------------- stage 7: destinations
  reg            valid7_q, final7_q, dense7_q, sparse7_q, res7_q, gather7_q, row7_q, stream7_q;
  reg            bank7_q, mask_end7_q;
  reg [N-1:0]    active7_q;
  reg [15:0]     addr7_q, waddr7_q, mask7_q;
  reg [7:0]      groups7_q;
  reg [LW-1:0]   lane7_q;
  reg [16*N-1:0] y7_q;
  reg [8*N-1:0]  b7_q;    // int8, or uint8 after ReLU

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

  reg [GROUPS-1:0]    below_q;  // V: the lane before this one is negative
  reg [16*GROUPS-1:0] pair6;
  integer p;
  always @*
    for (p = 0; p < GROUPS; p = p + 1)
    begin
      // V: the byte of either lane, as one of them is written
      pair6[16*p+:8] = sat8(row_sel ? y6[16*(GROUPS+p)+:16] : y6[16*p+:16]);
      pair6[16*p+8+:8] = (to_key ? sat8(y6[16*(GROUPS+p)+:16]) : pair6[16*p+:8])
                       - {7'd0, to_key ? y6[16*p+15] : below_q[p]};
    end
  assign ww_next_o = valid6_q && (to_key || to_value);

  integer j;
  always @(posedge clk_i) begin
    valid7_q    <= valid6_q;
    final7_q    <= final6_q;
    dense7_q      <= to_token || (to_hidden && dense6_q);
    sparse7_q      <= to_hidden && !dense6_q;
    res7_q      <= to_res;
    gather7_q   <= gather6_q;
    row7_q      <= row_sel;
    bank7_q     <= row_sel ? bank6_q[BANK_W] : bank6_q[0];
    stream7_q   <= to_stream;
    mask_end7_q <= mask_end6_q;
    mask7_q     <= mask6_q;
    groups7_q   <= groups6_q;
    active7_q   <= active6;
    lane7_q     <= lane6_q;
    addr7_q     <= dst6_q;
    waddr7_q    <= dst6_q + lane6;
    y7_q        <= y6;
    for (j = 0; j < N; j = j + 1)
      b7_q[8*j+:8] <= to_hidden ? relu(y6[16*j+:16], thr6_q) : sat8(y6[16*j+:16]);

    // softmax
    s_valid_o <= valid6_q && kind6_q == K_S;
    s_token_o <= token6_q + lane6;
    s_first_o <= s_first6_q && lane6_q == {LW{1'b0}};
    s_last_o  <= s_last6_q && final6_q;
    for (j = 0; j < N; j = j + 1) s_data_o[12*j+:12] <= sat12(y6[16*j+:16]);

    // K^T: both rows into neighbouring lanes of line c; V: one row's lane of line token. The odd lane
    // of a pair is less by one where the even lane is negative (rowvit_mac_pair.v).
    for (j = 0; j < GROUPS; j = j + 1) begin
      below_q[j]    <= row_sel ? y6[16*(GROUPS+j)+15] : y6[16*j+15];
      ww_valid_o[j] <= ww_next_o && j < groups6_q;
      ww_clear_o[16*j+:16] <= ww_next_o ? ~pair6[16*j+:16] : 16'd0;
    end
    ww_be_o   <= to_key ? {{(LANES - 2) {1'b0}}, rows6_q} << token6_q[LW-1:0]
                        : {{(LANES - 1) {1'b0}}, 1'b1} << lane6_q;
    ww_line_o <= to_key ? dst6_q[AW-1:0] + {token6_q[AW-1:LW], {LW{1'b0}}} + lane6[AW-1:0]
                        : dst6_q[AW-1:0] + token6_q[AW-1:0] + {{(AW - 1) {1'b0}}, row_sel};
    if (!rst_ni) begin
      valid7_q   <= 1'b0;
      s_valid_o  <= 1'b0;
      ww_valid_o <= {GROUPS{1'b0}};
    end
  end

  // ---------------------------------------------------------------- stage 8: residual sum
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_res_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_res
        localparam I = r * GROUPS + g;
        wire [15:0] old = gather7_q ? (bank7_q ? res_rdata_i[16*(GROUPS+g)+:16] : res_rdata_i[16*g+:16])
                                    : res_rdata_i[16*I+:16];
        wire signed [16:0] sum = {old[15], old} + {y7_q[16*I+15], y7_q[16*I+:16]};
        always @(posedge clk_i) begin
          res_we_o[I] <= valid7_q && res7_q && active7_q[I] && (!gather7_q || row7_q == r);
          res_wdata_o[16*I+:16] <= sum[16] == sum[15] ? sum[15:0] : {sum[16], {15{~sum[16]}}};
          if (!rst_ni) res_we_o[I] <= 1'b0;
        end
      end
    end
  endgenerate
  always @(posedge clk_i) res_waddr_o <= waddr7_q;

  // ---------------------------------------------------------------- token memory words, FFN2 mask
  wire [N-1:0]       seg_valid;
  wire [LANES*N-1:0] seg_map;
  rowvit_drain_words #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .valid_i(valid7_q), .dense_i(dense7_q), .sparse_i(sparse7_q), .active_i(active7_q),
      .lane_i(lane7_q), .base_i(addr7_q), .data_i(b7_q),
      .seg_valid_o(seg_valid), .seg_map_o(seg_map),
      .tw_valid_o(tw_valid_o), .tw_addr_o(tw_addr_o), .tw_data_o(tw_data_o)
  );

  rowvit_drain_mask #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .DEPTH(MASK_DEPTH)
  ) u_mask (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .tile_end_i(valid7_q && sparse7_q && final7_q), .write_i(mask_end7_q), .base_i(mask7_q),
      .groups_i(groups7_q), .seg_valid_i(seg_valid), .seg_map_i(seg_map),
      .mask_addr_i(mask_addr_i), .mask_data_o(mask_data_o)
  );

  // ---------------------------------------------------------------- completion events
  wire       ev_valid;
  wire       ev_band, ev_op, ev_mark;
  wire [7:0] ev_tag;
  wire [15:0] ev_bandno;
  wire       ev_out = delay_q[DONE_LAT-1] && ev_valid;
  rowvit_fifo #(
      .WIDTH(27),
      .DEPTH(TILE_QUEUE)
  ) u_events (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(d_pop), .in_ready_o(ev_room),
      .in_data_i({d_band_end && !d_null, d_op_last, d_mark, d_tag, d_band}),
      .out_valid_o(ev_valid), .out_ready_i(delay_q[DONE_LAT-1]),
      .out_data_o({ev_band, ev_op, ev_mark, ev_tag, ev_bandno}), .count_o()
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
  wire first6 = lane6_q == {LW{1'b0}} && sub6_q == 8'd0;
  rowvit_drain_records #(
      .GROUPS(GROUPS)
  ) u_records (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .head_valid_i(valid6_q && to_stream), .head_first_i(first6), .head_group_i(sub6_q),
      .head_count_i(count6_q), .head_total_i(total6_q), .head_last_i(last6_q), .head_tag_i(tag6_q),
      .logit_valid_i(valid7_q && stream7_q), .logit_i(y7_q[16*GROUPS-1:0]),
      .mark_i(ev_out && ev_mark), .mark_tag_i(ev_tag), .cycles_i(cycles_i), .fires_i(fires_i),
      .marking_o(marking), .room_o(room),
      .rec_valid_o(rec_valid_o), .rec_ready_i(rec_ready_i), .rec_data_o(rec_data_o),
      .rec_eor_o(rec_eor_o), .rec_last_o(rec_last_o)
  );
endmodule
`default_nettype wire
