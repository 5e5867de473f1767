// SPDX-License-Identifier: Apache-2.0
// LayerNorm of the residual rows into token memory (docs/numerics.md, section 4), and DUMP of the
// rows into the output stream. Up to four rows of a band (a part; of eight rows there are two, which take
// turns) and all groups work in parallel: pass 1 sums a part, pass 2 normalises it; both read the residual
// memory, one address per cycle. Pass 1 of the next part runs while norm_stats works on the sums of this one.
// Throughput: 2 * addresses + 2 cycles per part (at least 36 * rows + 60 per band), addresses being
// LANES * ceil(dim / (LANES * GROUPS)). Latency of the first part: 2 * addresses + 155.
`default_nettype none

module rowvit_norm_engine #(
    parameter ROWS = 2,
    parameter GROUPS = 3,
    parameter LANES = 64,
    // Channels, at most 1024; parameter sets held at once.
    parameter MAX_DIM = 768,
    parameter NORM_SLOTS = 2
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    // NORM instructions; taken when done.
    input  wire                      instr_valid_i,
    output wire                      instr_ready_o,
    input  wire [511:0]              instr_i,
    input  wire [95:0]               done_i,
    input  wire [95:0]               bands_i,
    input  wire [15:0]               live_i,
    output reg  [15:0]               done_o,
    output reg  [15:0]               bands_o,
    output wire                      busy_o,
    // Parameters {g, b} of the lane `index` (lane tile * LANES + lane) of a group; always taken.
    input  wire                      nw_valid_i,
    input  wire [7:0]                nw_group_i,
    input  wire [7:0]                nw_slot_i,
    input  wire [15:0]               nw_index_i,
    input  wire [47:0]               nw_data_i,
    // Residual memory, data two cycles after an accepted read.
    output wire                      rd_valid_o,
    input  wire                      rd_ready_i,
    output wire [15:0]               rd_addr_o,
    input  wire [16*ROWS*GROUPS-1:0] rd_data_i,
    // Token memory, a bank per row.
    output wire [ROWS-1:0]           tw_valid_o,
    input  wire [ROWS-1:0]           tw_ready_i,
    output wire [16*ROWS-1:0]        tw_addr_o,
    output wire [64*ROWS-1:0]        tw_data_o,
    // CHECKPOINT records.
    output wire                      out_valid_o,
    input  wire                      out_ready_i,
    output wire [63:0]               out_data_o,
    output wire                      out_eor_o
);
  `include "rowvit_defs.vh"
  localparam PARTS = ROWS > NORM_ROWS ? ROWS / NORM_ROWS : 1;
  localparam L = ROWS / PARTS;  // rows of a part
  localparam N = L * GROUPS;
  localparam SLOT_DEPTH = LANES * ((MAX_DIM + LANES * GROUPS - 1) / (LANES * GROUPS));
  localparam PARAM_DEPTH = NORM_SLOTS * SLOT_DEPTH;
  localparam PW = $clog2(PARAM_DEPTH);
  localparam LW = $clog2(LANES);
  localparam [15:0] TILE_STEP = (GROUPS[15:0] - 16'd1) * (LANES[15:0] / 16'd8) + 16'd1;  // words
  localparam [10:0] TILE_CHANNELS = GROUPS[10:0] * LANES[10:0];

  generate
    if (MAX_DIM > 1024 || MAX_DIM % LANES != 0) begin : g_bad_dim
      illegal_parameter_norm_engine_max_dim u_bad();
    end
    if (GROUPS * LANES > 1024 || (1 << LW) != LANES || LANES < 8) begin : g_bad_lanes
      illegal_parameter_norm_engine_lanes u_bad();
    end
  endgenerate

  // ---------------------------------------------------------------- fields
  wire [11:0] tag = instr_i[F_IMAGE+:12];
  wire        one_row = instr_i[F_FLAGS + FLAG_ONE_ROW];
  wire        dump = instr_i[F_NORM_KIND+:16] == NORMKIND_DUMP[15:0];
  wire [10:0] dim = instr_i[F_NORM_DIM+:11];
  wire [15:0] res_base = instr_i[F_NORM_RES_BASE+:16];
  wire [15:0] res_stride = instr_i[F_NORM_RES_STRIDE+:16];
  wire [15:0] dst_base = instr_i[F_NORM_DST_BASE+:16];
  wire [15:0] dst_stride = instr_i[F_NORM_DST_STRIDE+:16];
  wire [7:0]  slot = instr_i[F_NORM_SLOT+:8];
  wire [4:0]  shift = instr_i[F_NORM_SHIFT+:5];

  // First parameter of a slot.
  function [PW-1:0] slot_base;
    input [7:0] number;
    integer s;
    begin
      slot_base = 0;
      for (s = 1; s < NORM_SLOTS; s = s + 1) begin
        if (number == s[7:0]) slot_base = s[PW-1:0] * SLOT_DEPTH[PW-1:0];
      end
    end
  endfunction

  // ---------------------------------------------------------------- operation
  reg         run_q, dump_q;
  reg  [15:0] count_q;   // rows
  wire        dep_ok;
  wire [15:0] dump_band;
  reg         dep_q;      // dep_ok of the cycle before
  reg         known_q;    // it is about this instruction
  wire        next = !run_q && known_q && dep_q;
  wire        skip = next && instr_i[F_FLAGS + FLAG_VOID];
  wire        start = next && !skip;
  wire        band_done_d, op_done_d;
  reg         band_done, op_done;
  reg  [15:0] sum_band_q; // of the next pass 1
  rowvit_dep_check u_dep_check (
      .chain_i(instr_i[F_CHAIN+:N_ENGINE]), .dep_i(instr_i[F_DEPS+:16*N_ENGINE]),
      .done_i(done_i), .bands_i(bands_i),
      .band_i(!run_q ? 16'd0 : dump_q ? dump_band : sum_band_q), .ok_o(dep_ok)
  );
  assign busy_o = run_q;
  assign instr_ready_o = op_done || skip;
  always @(posedge clk_i) begin
    dep_q <= dep_ok;
    known_q <= instr_valid_i && !instr_ready_o;
    band_done <= band_done_d;
    op_done <= op_done_d;
    run_q <= (run_q || start) && !(op_done || skip);
    if (start) begin
      dump_q <= dump;
      count_q <= one_row ? 16'd1 : live_i;
    end
    if (band_done) bands_o <= bands_o + 16'd1;
    if (op_done || skip) begin
      bands_o <= 16'd0;
      done_o <= done_o + 16'd1;
    end
    if (!rst_ni) begin
      run_q <= 1'b0;
      known_q <= 1'b0;
      {band_done, op_done} <= 2'b00;
      bands_o <= 16'd0;
      done_o <= 16'd0;
    end
  end

  // Constants of the output shift.
  reg [4:0]  shift_q;
  reg [30:0] half_q;
  reg [33:0] high_q;
  always @(posedge clk_i) begin
    shift_q <= shift;
    half_q <= shift == 5'd0 ? 31'd0 : 31'd1 << (shift - 5'd1);
    high_q <= {27'h7ffffff, 7'd0} << shift;
  end

  // ---------------------------------------------------------------- passes
  // A pass reads the addresses of one band, at most one per cycle.
  reg         pass_q;       // a pass reads
  reg         square_q;     // it is pass 1
  reg  [15:0] addr_q;       // address
  reg  [LW-1:0] lane_q;
  reg  [10:0] left_q;       // channels from this tile on
  reg         first_q;      // nothing read yet
  reg  [15:0] sum_row_q, sum_base_q;               // next pass 1: first row, residual address
  reg  [15:0] norm_row_q, norm_base_q, norm_dst_q; // next pass 2: also the token memory word
  reg  [15:0] sum_row_d, sum_base_d, norm_row_d, norm_base_d, norm_dst_d;  // after the next passes
  reg         last_tile_q;                         // the tile is the band's last
  reg  [15:0] word_q;                              // pass 2: word of group 0
  reg  [PW-1:0] param_q;                           // pass 2: parameter
  wire [PARTS-1:0] stats_free, stats_valid;
  reg         sum_part_q, norm_part_q;             // of the next passes
  reg         part_q;                              // of this pass
  wire        sum_end, norm_end;                   // they are the last of their band
  // The stages move in this cycle, in the next one, and in that after it.
  reg         en_q, move_q;
  wire        move_d;

  wire layernorm = run_q && !dump_q;
  wire can_sum = sum_row_q < count_q && dep_q && stats_free[PARTS > 1 && sum_part_q];
  wire start_sum = layernorm && !pass_q && can_sum;
  wire start_norm = layernorm && !pass_q && !can_sum && stats_valid[PARTS > 1 && norm_part_q];
  wire dump_rd;
  wire [15:0] dump_addr;
  // What is read is in stage 2 for one cycle.
  wire pass_rd = pass_q && en_q && move_q && move_d;
  wire read = pass_rd && rd_ready_i;
  wire lane_end = &lane_q;
  wire octet_end = read && (&lane_q[2:0]);
  wire band_end = last_tile_q && lane_end;
  assign rd_valid_o = pass_rd || dump_rd;
  assign rd_addr_o = pass_q ? addr_q : dump_addr;

  always @(posedge clk_i) begin
    if (start) begin
      sum_row_q <= 16'd0;
      sum_base_q <= res_base;
      sum_band_q <= 16'd0;
      norm_row_q <= 16'd0;
      sum_part_q <= 1'b0;
      norm_part_q <= 1'b0;
      norm_base_q <= res_base;
      norm_dst_q <= dst_base;
    end
    if (!pass_q) begin
      lane_q <= 0;
      left_q <= dim;
      first_q <= 1'b1;
      square_q <= start_sum;
      part_q <= start_sum ? sum_part_q : norm_part_q;
      addr_q <= start_sum ? sum_base_q : norm_base_q;
      word_q <= norm_dst_q;
      param_q <= slot_base(slot);
    end else if (read) begin
      lane_q <= lane_q + 1'b1;
      addr_q <= addr_q + 16'd1;
      param_q <= param_q + 1'b1;
      first_q <= 1'b0;
      if (lane_end) left_q <= left_q - TILE_CHANNELS;
      if (octet_end) word_q <= word_q + (lane_end ? TILE_STEP : 16'd1);
    end
    pass_q <= (pass_q || start_sum || start_norm) && !(read && band_end);
    // early, so that dep_q is about the next band when the pass ends
    if (start_sum && sum_end) sum_band_q <= sum_band_q + 16'd1;
    if (read && band_end) begin
      if (square_q) begin
        sum_row_q <= sum_row_d;
        sum_part_q <= !sum_end;
        if (sum_end) sum_base_q <= sum_base_d;
      end else begin
        norm_row_q <= norm_row_d;
        norm_part_q <= !norm_end;
        if (norm_end) begin
          norm_base_q <= norm_base_d;
          norm_dst_q <= norm_dst_d;
        end
      end
    end
    // These stand for many cycles before they are used.
    sum_row_d <= sum_row_q + L[15:0];
    sum_base_d <= sum_base_q + res_stride;
    norm_row_d <= norm_row_q + L[15:0];
    norm_base_d <= norm_base_q + res_stride;
    norm_dst_d <= norm_dst_q + dst_stride;
    last_tile_q <= left_q <= TILE_CHANNELS;
    if (!rst_ni) pass_q <= 1'b0;
  end

  // Which groups and rows of the tile exist.
  wire [GROUPS-1:0] groups;
  wire [L-1:0]      rows;
  wire              last_part;
  genvar g, r;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_groups
      localparam [31:0] BELOW = g * LANES;
      assign groups[g] = left_q > BELOW[10:0];
    end
    for (r = 0; r < L; r = r + 1) begin : g_rows
      localparam [15:0] OFFSET = r;
      assign rows[r] = norm_row_q + OFFSET < count_q;
    end
  endgenerate
  assign last_part = norm_row_q + L[15:0] >= count_q;
  assign sum_end = PARTS == 1 || sum_part_q || sum_row_q + L[15:0] >= count_q;
  assign norm_end = PARTS == 1 || norm_part_q || last_part;

  // ---------------------------------------------------------------- alongside the lanes: stages 1 to 22
  // Stage s of a pipe is its slice s. A read enters stage 1; en_q moves all stages.
  localparam STAGES = 22;
  localparam G_STAGE = 13, B_STAGE = 16;  // parameter memories are addressed
  localparam WORD_W = 16 + GROUPS + L + 3;
  reg [9:1]             sum_s, sum_last_s, first_s, part_s;
  reg [STAGES:1]        norm_s, octet_s;
  reg [2*GROUPS-1:0]    present_s;
  reg [2:1]             square_s;
  reg [PW*B_STAGE-1:0]  param_s;
  reg [WORD_W*STAGES-1:0] word_s;
  wire [WORD_W-1:0]     word_in = {part_q, band_end && norm_end, band_end && last_part,
                                   rows, groups, word_q};
  // A copy of en_q, as in rowvit_norm_lane.
  (* keep = "true" *) reg en_word_q;
  (* keep = "true" *) always @(posedge clk_i) en_word_q <= move_q;
  always @(posedge clk_i) begin
    if (en_word_q) begin
      param_s <= {param_s[PW*(B_STAGE-1)-1:0], param_q};
      word_s <= {word_s[WORD_W*(STAGES-1)-1:0], word_in};
    end
    if (en_q) begin
      sum_s <= {sum_s[8:1], read && square_q};
      norm_s <= {norm_s[STAGES-1:1], read && !square_q};
      octet_s <= {octet_s[STAGES-1:1], octet_end && !square_q};
      first_s <= {first_s[8:1], first_q};
      part_s <= {part_s[8:1], part_q};
      sum_last_s <= {sum_last_s[8:1], band_end};
      present_s <= {present_s[GROUPS-1:0], groups};
      square_s <= {square_s[1], square_q};
    end
    if (!rst_ni) begin
      sum_s <= 9'd0;
      norm_s <= {STAGES{1'b0}};
      octet_s <= {STAGES{1'b0}};
    end
  end

  // ---------------------------------------------------------------- parameters
  // Single port memories: the pipeline stalls in a cycle that writes.
  localparam NW = 1 + 8 + PW + 48;
  reg  [NW-1:0] nw0_q, nw1_q;
  wire          nw_soon = nw0_q[NW-1];
  reg  [56:0]   nw2_q;
  wire          nw_valid;
  wire [7:0]    nw_group;
  wire [47:0]   nw_data;
  assign {nw_valid, nw_group, nw_data} = nw2_q;
  always @(posedge clk_i) begin
    nw0_q <= {nw_valid_i, nw_group_i, slot_base(nw_slot_i) + nw_index_i[PW-1:0], nw_data_i};
    nw1_q <= nw0_q;
    nw2_q <= {nw1_q[NW-1-:9], nw1_q[47:0]};
  end
  // Addresses of the next cycle; after a write, again that of the stage.
  wire nw_next = nw1_q[NW-1];
  wire [PW-1:0] g_addr_d = nw_next ? nw1_q[48+:PW] : param_s[PW*(en_q ? G_STAGE - 2 : G_STAGE - 1)+:PW];
  wire [PW-1:0] b_addr_d = nw_next ? nw1_q[48+:PW] : param_s[PW*(en_q ? B_STAGE - 2 : B_STAGE - 1)+:PW];
  wire [16*GROUPS-1:0] gain;
  wire [33*GROUPS-1:0] bias;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_param
      // Copies of en_q, as in rowvit_norm_lane, and of the addresses.
      (* keep = "true" *) reg en_group_q;
      (* keep = "true" *) always @(posedge clk_i) en_group_q <= move_q;
      wire        write = nw_valid && nw_group == g;
      wire [47:0] param;
      for (r = 0; r < 3; r = r + 1) begin : g_half  // gain, and the halves of the bias
        (* keep = "true" *) reg [PW-1:0] param_addr_q;
        (* keep = "true" *) always @(posedge clk_i) param_addr_q <= r == 2 ? g_addr_d : b_addr_d;
        rowvit_lut_ram #(.WIDTH(16), .DEPTH(PARAM_DEPTH)) u_ram (
            .clk_i(clk_i), .en_i(en_group_q), .we_i(write), .addr_i(param_addr_q),
            .wdata_i(nw_data[16*r+:16]), .rdata_o(param[16*r+:16])
        );
      end
      wire [31:0] b_read = param[31:0];
      reg  [32:0] bias_q;
      assign gain[16*g+:16] = param[47:32];
      always @(posedge clk_i) if (en_group_q) bias_q <= {b_read[31], b_read} + {2'd0, half_q};
      assign bias[33*g+:33] = bias_q;
    end
  endgenerate

  // ---------------------------------------------------------------- statistics and lanes
  wire [16*N-1:0]    x;
  wire [32*N-1:0]    product;
  wire [26*L*PARTS-1:0] s1_of;
  wire [5*L*PARTS-1:0]  n_of;
  wire [17*L*PARTS-1:0] recip_of;
  wire [26*L-1:0]    s1 = s1_of[26*L*(PARTS > 1 && part_s[7])+:26*L];
  wire [5*L-1:0]     n = n_of[5*L*(PARTS > 1 && part_s[8])+:5*L];
  wire [17*L-1:0]    recip = recip_of[17*L*(PARTS > 1 && part_s[9])+:17*L];
  wire [8*N-1:0]     y;
  generate
    for (r = 0; r < PARTS; r = r + 1) begin : g_part
      localparam P = r == 1;
      rowvit_norm_stats #(
          .ROWS(L), .GROUPS(GROUPS)
      ) u_stats (
          .clk_i(clk_i), .rst_ni(rst_ni), .move_i(move_q), .dim8_i(dim[10:3]),
          .start_i(start_sum && sum_part_q == P), .free_o(stats_free[r]),
          .x_i(x), .x_valid_i(sum_s[4] && part_s[4] == P), .x_first_i(first_s[4]),
          .square_i(product), .square_valid_i(sum_s[9] && part_s[9] == P), .square_first_i(first_s[9]),
          .square_last_i(sum_last_s[9]),
          .valid_o(stats_valid[r]), .load_s1_i(norm_s[6] && first_s[6] && part_s[6] == P),
          .load_n_i(norm_s[7] && first_s[7] && part_s[7] == P),
          .load_r_i(norm_s[8] && first_s[8] && part_s[8] == P),
          .s1_o(s1_of[26*L*r+:26*L]), .n_o(n_of[5*L*r+:5*L]), .r_o(recip_of[17*L*r+:17*L])
      );
    end
    for (r = 0; r < L; r = r + 1) begin : g_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_lane
        localparam I = r * GROUPS + g;
        rowvit_norm_lane u_lane (
            .clk_i(clk_i), .move_i(move_q),
            .x_i(rd_data_i[16*(I+N*(PARTS>1&&part_s[2]))+:16]), .present_i(present_s[GROUPS+g]),
            .square_i(square_s[2]),
            .dim_i(dim), .x_o(x[16*I+:16]), .product_o(product[32*I+:32]),
            .s1_i(s1[26*r+:26]), .n_i(n[5*r+:5]), .r_i(recip[17*r+:17]),
            .g_i(gain[16*g+:16]), .bias_i(bias[33*g+:33]),
            .shift_i(shift_q), .high_i(high_q), .y_o(y[8*I+:8])
        );
      end
    end
  endgenerate

  // ---------------------------------------------------------------- words
  // Eight values of a lane make a word; the words of an octet wait in hold_q while the next is
  // collected. The pipeline stops when that one is complete as well; to know the stop two cycles
  // ahead, so that no read is under way then, a word that leaves meanwhile counts as held.
  wire [WORD_W-1:0] word_out = word_s[WORD_W*(STAGES-1)+:WORD_W];
  wire end_out = octet_s[STAGES];
  wire end_soon = en_q && move_q ? octet_s[STAGES-2] : en_q || move_q ? octet_s[STAGES-1] : end_out;
  reg [56*N-1:0]  pack_q;
  reg [64*N-1:0]  hold_q;
  reg [N-1:0]     held_q;      // word of lane waits
  reg [15:0]      hold_addr_q; // of group 0
  reg             hold_part_q, hold_band_q, hold_op_q;
  wire [N-1:0]    taken;
  // A value of pass 2 leaves in this cycle, and an octet ends: known a cycle ahead, a copy for each lane.
  wire            out_d = rst_ni && move_q && norm_s[en_q ? STAGES-1 : STAGES];
  wire            end_d = rst_ni && move_q && octet_s[en_q ? STAGES-1 : STAGES];
  wire [N-1:0]    out_now, end_now;
  rowvit_copies #(.N(N)) u_out (.clk_i(clk_i), .d_i(out_d), .q_o(out_now));
  rowvit_copies #(.N(N)) u_end (.clk_i(clk_i), .d_i(end_d), .q_o(end_now));
  wire            holding = |held_q;
  wire            emptied = holding && (held_q & ~taken) == 0;
  assign move_d = run_q && !nw_soon && !(holding && end_soon);

  wire dump_band_done, dump_done;
  assign band_done_d = (emptied && hold_band_q) || dump_band_done;
  assign op_done_d = (emptied && hold_op_q) || dump_done;

  integer i;
  always @(posedge clk_i) begin
    move_q <= move_d;
    en_q <= move_q;
    held_q <= held_q & ~taken;
    for (i = 0; i < N; i = i + 1) begin
      if (out_now[i]) pack_q[56*i+:56] <= {y[8*i+:8], pack_q[56*i+8+:48]};
      if (end_now[i]) begin
        hold_q[64*i+:64] <= {y[8*i+:8], pack_q[56*i+:56]};
        held_q[i] <= word_out[16 + i % GROUPS] && word_out[16 + GROUPS + i / GROUPS];
      end
    end
    if (end_now[0]) begin
      hold_addr_q <= word_out[15:0];
      {hold_part_q, hold_band_q, hold_op_q} <= word_out[WORD_W-1-:3];
    end
    if (!rst_ni) begin
      move_q <= 1'b0;
      held_q <= 0;
    end
  end

  generate
    for (r = 0; r < L; r = r + 1) begin : g_write
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
      for (g = 0; g < PARTS; g = g + 1) begin : g_bank
        assign tw_valid_o[g*L+r] = |want && hold_part_q == (g == 1);
        assign tw_addr_o[16*(g*L+r)+:16] = hold_addr_q + offset;
        assign tw_data_o[64*(g*L+r)+:64] = data;
      end
      assign taken[r*GROUPS+:GROUPS] = pick & {GROUPS{tw_ready_i[L*(PARTS>1&&hold_part_q)+r]}};
    end
  endgenerate

  // ---------------------------------------------------------------- dump
  reg dump_busy_q;
  always @(posedge clk_i) begin
    dump_busy_q <= run_q && dump_q;
    if (!rst_ni) dump_busy_q <= 1'b0;
  end
  rowvit_norm_dump #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_dump (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(run_q && dump_q && !dump_busy_q), .count_i(count_q), .tag_i(tag), .dim_i(dim),
      .res_base_i(res_base), .res_stride_i(res_stride), .band_o(dump_band), .band_ok_i(dep_q),
      .band_done_o(dump_band_done), .done_o(dump_done),
      .rd_valid_o(dump_rd), .rd_ready_i(rd_ready_i), .rd_addr_o(dump_addr), .rd_data_i(rd_data_i),
      .out_valid_o(out_valid_o), .out_ready_i(out_ready_i), .out_data_o(out_data_o),
      .out_eor_o(out_eor_o)
  );
endmodule

`default_nettype wire
