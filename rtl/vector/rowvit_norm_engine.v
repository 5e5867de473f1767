// SPDX-License-Identifier: Apache-2.0
// LayerNorm of the residual rows (docs/numerics.md, section 4) into token memory, or, TOKENS, into the
// output stream (section 8), and DUMP of the rows into that. Up to four rows of a band (a part; of eight
// rows there are two, which take turns) and all groups work in parallel: pass 1 sums a part, pass 2
// normalises it (rowvit_norm_passes.v). Pass 1 of the next part runs while norm_stats works on the sums
// of this one.
// Throughput: 2 * addresses + 2 cycles per part (at least 36 * rows + 60 per band), addresses being
// LANES * ceil(dim / (LANES * GROUPS)); of TOKENS a word per cycle. Latency of a part:
// 2 * addresses + 36 * rows + GROUPS + 82.
`default_nettype none

module rowvit_norm_engine #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Channels, at most 1024.
    parameter MAX_DIM = 768,
    // Parameter sets held at once.
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
    // CHECKPOINT and TOKENS records.
    output wire                      out_valid_o,
    input  wire                      out_ready_i,
    output wire [63:0]               out_data_o,
    output wire                      out_eor_o,
    output wire                      out_last_o
);
  `include "rowvit_defs.vh"
  localparam PARTS = ROWS > NORM_ROWS ? ROWS / NORM_ROWS : 1;
  localparam L = ROWS / PARTS;  // rows of a part
  localparam N = L * GROUPS;
  localparam SLOT_DEPTH = LANES * ((MAX_DIM + LANES * GROUPS - 1) / (LANES * GROUPS));
  localparam PW = $clog2(NORM_SLOTS * SLOT_DEPTH);

  generate
    if (MAX_DIM > 1024) begin : g_bad_most
      illegal_parameter_norm_engine_max_dim_must_be_at_most_1024 u_bad();
    end
    if (MAX_DIM % LANES != 0) begin : g_bad_dim
      illegal_parameter_norm_engine_max_dim_must_be_a_multiple_of_lanes u_bad();
    end
    if (GROUPS * LANES > 1024) begin : g_bad_groups
      illegal_parameter_norm_engine_groups_times_lanes_must_be_at_most_1024 u_bad();
    end
    if ((1 << $clog2(LANES)) != LANES || LANES < 8) begin : g_bad_lanes
      illegal_parameter_norm_engine_lanes_must_be_a_power_of_two_from_8_on u_bad();
    end
    if (NORM_SLOTS < 1 || NORM_SLOTS > 256 || NORM_SLOTS * SLOT_DEPTH > 65536) begin : g_bad_slots
      illegal_parameter_norm_engine_norm_slots_must_be_at_most_256_in_65536_addresses u_bad();
    end
  endgenerate

  // ---------------------------------------------------------------- fields
  wire [11:0] tag = instr_i[F_IMAGE+:12];
  wire        one_row = instr_i[F_FLAGS + FLAG_ONE_ROW];
  wire        last = instr_i[F_FLAGS + FLAG_LAST];
  wire        dump = instr_i[F_NORM_KIND+:16] == NORMKIND_DUMP[15:0];
  wire        tokens = instr_i[F_NORM_KIND+:16] == NORMKIND_TOKENS[15:0];
  wire [10:0] dim = instr_i[F_NORM_DIM+:11];
  wire [15:0] res_base = instr_i[F_NORM_RES_BASE+:16];
  wire [15:0] res_stride = instr_i[F_NORM_RES_STRIDE+:16];
  wire [15:0] dst_base = instr_i[F_NORM_DST_BASE+:16];
  wire [15:0] dst_stride = instr_i[F_NORM_DST_STRIDE+:16];
  wire [7:0]  slot = instr_i[F_NORM_SLOT+:8];
  wire [4:0]  shift = instr_i[F_NORM_SHIFT+:5];

  // ---------------------------------------------------------------- operation
  reg         run_q, dump_q, tokens_q;
  reg  [15:0] count_q;   // rows
  wire        dep_ok;
  wire [15:0] dump_band;
  reg         dep_q;      // dep_ok of the cycle before
  reg         known_q;    // it is about this instruction
  wire        next = !run_q && known_q && dep_q;
  wire        skip = next && instr_i[F_FLAGS + FLAG_VOID];
  wire        start = next && !skip;
  wire        band_done_d, op_done_d;
  reg         band_done_q, op_done_q;
  wire [15:0] sum_band;  // of the next pass 1
  rowvit_dep_check u_dep_check (
      .chain_i(instr_i[F_CHAIN+:N_ENGINE]), .dep_i(instr_i[F_DEPS+:16*N_ENGINE]),
      .done_i(done_i), .bands_i(bands_i),
      .band_i(!run_q ? 16'd0 : dump_q ? dump_band : sum_band), .ok_o(dep_ok)
  );
  assign busy_o = run_q;
  assign instr_ready_o = op_done_q || skip;
  always @(posedge clk_i) begin
    dep_q <= dep_ok;
    known_q <= instr_valid_i && !instr_ready_o;
    band_done_q <= band_done_d;
    op_done_q <= op_done_d;
    run_q <= (run_q || start) && !(op_done_q || skip);
    if (start) begin
      dump_q <= dump;
      tokens_q <= tokens;
      count_q <= one_row ? 16'd1 : live_i;
    end
    if (band_done_q) bands_o <= bands_o + 16'd1;
    if (op_done_q || skip) begin
      bands_o <= 16'd0;
      done_o <= done_o + 16'd1;
    end
    if (!rst_ni) begin
      run_q <= 1'b0;
      known_q <= 1'b0;
      {band_done_q, op_done_q} <= 2'b00;
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
    high_q <= (tokens ? {19'h7ffff, 15'd0} : {27'h7ffffff, 7'd0}) << shift;
  end

  // ---------------------------------------------------------------- passes
  // The stages move in this cycle, in the next one, and in that after it.
  reg  en_q, move_q;
  wire move_d, stall, full, tokens_full;
  assign move_d = run_q && !stall && !full && !tokens_full;
  always @(posedge clk_i) begin
    move_q <= move_d;
    en_q <= move_q;
    if (!rst_ni) move_q <= 1'b0;
  end

  wire [PARTS-1:0]  stats_free, stats_valid;
  wire              sum_start, sum_part;
  wire              passing, pass_rd, dump_rd;
  wire [15:0]       pass_addr, dump_addr;
  wire              read, square, first, part, octet_end, band_end, norm_end, last_part;
  wire [GROUPS-1:0] groups;
  wire [L-1:0]      rows;
  wire [15:0]       word;
  wire [PW-1:0]     param_base, param;
  assign rd_valid_o = pass_rd || dump_rd;
  assign rd_addr_o = passing ? pass_addr : dump_addr;
  rowvit_norm_passes #(
      .ROWS(L), .PARTS(PARTS), .GROUPS(GROUPS), .LANES(LANES), .PW(PW)
  ) u_passes (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(start), .run_i(run_q && !dump_q), .count_i(count_q), .dim_i(dim),
      .res_base_i(res_base), .res_stride_i(res_stride), .dst_base_i(dst_base),
      .dst_stride_i(dst_stride), .param_base_i(param_base),
      .band_o(sum_band), .band_ok_i(dep_q), .free_i(stats_free), .valid_i(stats_valid),
      .sum_start_o(sum_start), .sum_part_o(sum_part), .move_i(en_q && move_q && move_d),
      .pass_o(passing), .rd_valid_o(pass_rd), .rd_ready_i(rd_ready_i), .rd_addr_o(pass_addr),
      .read_o(read), .square_o(square), .first_o(first), .part_o(part), .octet_end_o(octet_end),
      .band_end_o(band_end), .norm_end_o(norm_end), .last_part_o(last_part), .groups_o(groups),
      .rows_o(rows), .word_o(word), .param_o(param)
  );

  // ---------------------------------------------------------------- alongside the lanes: stages 1 to 22
  // Stage s of a pipe is its slice s. A read enters stage 1; en_q moves all stages.
  localparam STAGES = 22;
  localparam G_STAGE = 13, B_STAGE = 16;  // parameter memories are addressed
  localparam WORD_W = 16 + GROUPS + L + 3;
  reg [9:1]               sum_pipe_q, sum_last_pipe_q, first_pipe_q, part_pipe_q;
  reg [STAGES:1]          norm_pipe_q, octet_pipe_q;
  reg [2*GROUPS-1:0]      present_pipe_q;
  reg [2:1]               square_pipe_q;
  reg [PW*B_STAGE-1:0]    param_pipe_q;
  reg [WORD_W*STAGES-1:0] word_pipe_q;
  wire [WORD_W-1:0] word_in = {part, band_end && norm_end, band_end && last_part, rows, groups, word};
  // A copy of en_q, as in rowvit_norm_lane.
  (* keep = "true" *) reg en_word_q;
  (* keep = "true" *) always @(posedge clk_i) en_word_q <= move_q;
  always @(posedge clk_i) begin
    if (en_word_q) begin
      param_pipe_q <= {param_pipe_q[PW*(B_STAGE-1)-1:0], param};
      word_pipe_q <= {word_pipe_q[WORD_W*(STAGES-1)-1:0], word_in};
    end
    if (en_q) begin
      sum_pipe_q <= {sum_pipe_q[8:1], read && square};
      norm_pipe_q <= {norm_pipe_q[STAGES-1:1], read && !square};
      octet_pipe_q <= {octet_pipe_q[STAGES-1:1], octet_end && !square};
      first_pipe_q <= {first_pipe_q[8:1], first};
      part_pipe_q <= {part_pipe_q[8:1], part};
      sum_last_pipe_q <= {sum_last_pipe_q[8:1], band_end};
      present_pipe_q <= {present_pipe_q[GROUPS-1:0], groups};
      square_pipe_q <= {square_pipe_q[1], square};
    end
    if (!rst_ni) begin
      sum_pipe_q <= 9'd0;
      norm_pipe_q <= {STAGES{1'b0}};
      octet_pipe_q <= {STAGES{1'b0}};
    end
  end

  // ---------------------------------------------------------------- parameters
  wire [16*GROUPS-1:0] gain;
  wire [33*GROUPS-1:0] bias;
  rowvit_norm_params #(
      .GROUPS(GROUPS), .SLOTS(NORM_SLOTS), .SLOT_DEPTH(SLOT_DEPTH)
  ) u_params (
      .clk_i(clk_i), .move_i(move_q),
      .nw_valid_i(nw_valid_i), .nw_group_i(nw_group_i), .nw_slot_i(nw_slot_i),
      .nw_index_i(nw_index_i), .nw_data_i(nw_data_i), .stall_o(stall),
      .slot_i(slot), .base_o(param_base),
      .g_number_i(param_pipe_q[PW*(en_q?G_STAGE-2:G_STAGE-1)+:PW]),
      .b_number_i(param_pipe_q[PW*(en_q?B_STAGE-2:B_STAGE-1)+:PW]),
      .half_i(half_q), .gain_o(gain), .bias_o(bias)
  );

  // ---------------------------------------------------------------- statistics and lanes
  wire [16*N-1:0]    x;
  wire [32*N-1:0]    product;
  wire [26*L*PARTS-1:0] s1_of;
  wire [5*L*PARTS-1:0]  n_of;
  wire [17*L*PARTS-1:0] recip_of;
  wire [26*L-1:0]    s1 = s1_of[26*L*(PARTS > 1 && part_pipe_q[7])+:26*L];
  wire [5*L-1:0]     n = n_of[5*L*(PARTS > 1 && part_pipe_q[8])+:5*L];
  wire [17*L-1:0]    recip = recip_of[17*L*(PARTS > 1 && part_pipe_q[9])+:17*L];
  wire [8*N-1:0]     y;
  wire [16*N-1:0]    wide;
  genvar g, r;
  generate
    for (r = 0; r < PARTS; r = r + 1) begin : g_part
      localparam P = r == 1;
      rowvit_norm_stats #(
          .ROWS(L), .GROUPS(GROUPS)
      ) u_stats (
          .clk_i(clk_i), .rst_ni(rst_ni), .move_i(move_q), .dim8_i(dim[10:3]),
          .start_i(sum_start && sum_part == P), .free_o(stats_free[r]),
          .x_i(x), .x_valid_i(sum_pipe_q[4] && part_pipe_q[4] == P), .x_first_i(first_pipe_q[4]),
          .square_i(product), .square_valid_i(sum_pipe_q[9] && part_pipe_q[9] == P),
          .square_first_i(first_pipe_q[9]), .square_last_i(sum_last_pipe_q[9]),
          .valid_o(stats_valid[r]),
          .load_s1_i(norm_pipe_q[6] && first_pipe_q[6] && part_pipe_q[6] == P),
          .load_n_i(norm_pipe_q[7] && first_pipe_q[7] && part_pipe_q[7] == P),
          .load_r_i(norm_pipe_q[8] && first_pipe_q[8] && part_pipe_q[8] == P),
          .s1_o(s1_of[26*L*r+:26*L]), .n_o(n_of[5*L*r+:5*L]), .r_o(recip_of[17*L*r+:17*L])
      );
    end
    for (r = 0; r < L; r = r + 1) begin : g_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_lane
        localparam I = r * GROUPS + g;
        rowvit_norm_lane u_lane (
            .clk_i(clk_i), .move_i(move_q),
            .x_i(rd_data_i[16*(I+N*(PARTS>1&&part_pipe_q[2]))+:16]), .present_i(present_pipe_q[GROUPS+g]),
            .square_i(square_pipe_q[2]),
            .dim_i(dim), .x_o(x[16*I+:16]), .product_o(product[32*I+:32]),
            .s1_i(s1[26*r+:26]), .n_i(n[5*r+:5]), .r_i(recip[17*r+:17]),
            .g_i(gain[16*g+:16]), .bias_i(bias[33*g+:33]),
            .shift_i(shift_q), .high_i(high_q), .y_o(y[8*I+:8]),
            .wide_o(wide[16*I+:16])
        );
      end
    end
  endgenerate

  // ---------------------------------------------------------------- words
  wire [15:0]       word_out;
  wire [GROUPS-1:0] groups_out;
  wire [L-1:0]      rows_out;
  wire              part_out, band_end_out, op_end_out;
  assign {part_out, band_end_out, op_end_out, rows_out, groups_out, word_out}
      = word_pipe_q[WORD_W*(STAGES-1)+:WORD_W];
  wire [1:0] to_memory = {2{!tokens_q}} & norm_pipe_q[STAGES-:2];
  wire [2:0] octets = {3{!tokens_q}} & octet_pipe_q[STAGES-:3];
  wire words_band_done, words_op_done, dump_band_done, dump_done;
  assign band_done_d = words_band_done || dump_band_done;
  assign op_done_d = words_op_done || dump_done;
  rowvit_norm_words #(
      .ROWS(L), .PARTS(PARTS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni), .move_i(move_q), .en_i(en_q),
      .value_i(to_memory), .octet_i(octets), .y_i(y), .word_i(word_out),
      .groups_i(groups_out), .rows_i(rows_out), .part_i(part_out), .band_end_i(band_end_out),
      .op_end_i(op_end_out), .full_o(full), .band_done_o(words_band_done), .op_done_o(words_op_done),
      .tw_valid_o(tw_valid_o), .tw_ready_i(tw_ready_i), .tw_addr_o(tw_addr_o), .tw_data_o(tw_data_o)
  );

  // ---------------------------------------------------------------- records
  wire        tk_valid, tk_ready, tk_band_end, tk_op_end;
  wire [63:0] tk_data;
  rowvit_norm_tokens #(
      .ROWS(L), .GROUPS(GROUPS)
  ) u_tokens (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .value_i(en_q && tokens_q && norm_pipe_q[STAGES]), .y_i(wide), .groups_i(groups_out),
      .rows_i(rows_out), .band_end_i(band_end_out), .op_end_i(op_end_out), .full_o(tokens_full),
      .valid_o(tk_valid), .ready_i(tk_ready), .data_o(tk_data), .band_end_o(tk_band_end),
      .op_end_o(tk_op_end)
  );
  reg record_busy_q;
  always @(posedge clk_i) begin
    record_busy_q <= run_q && (dump_q || tokens_q);
    if (!rst_ni) record_busy_q <= 1'b0;
  end
  rowvit_norm_dump #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_dump (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(run_q && (dump_q || tokens_q) && !record_busy_q), .tokens_i(tokens_q), .last_i(last),
      .count_i(count_q), .tag_i(tag), .dim_i(dim), .res_base_i(res_base), .res_stride_i(res_stride),
      .part_words_i(dst_stride), .band_o(dump_band), .band_ok_i(dep_q),
      .band_done_o(dump_band_done), .done_o(dump_done),
      .rd_valid_o(dump_rd), .rd_ready_i(rd_ready_i), .rd_addr_o(dump_addr), .rd_data_i(rd_data_i),
      .tk_valid_i(tk_valid), .tk_ready_o(tk_ready), .tk_data_i(tk_data), .tk_band_end_i(tk_band_end),
      .tk_op_end_i(tk_op_end),
      .out_valid_o(out_valid_o), .out_ready_i(out_ready_i), .out_data_o(out_data_o),
      .out_eor_o(out_eor_o), .out_last_o(out_last_o)
  );
endmodule

`default_nettype wire
