// SPDX-License-Identifier: Apache-2.0
// All that MATMUL and ATTN run on: the sequencer, a fetcher per row and group, the array with its weight
// memory, the drain and the softmax.
// Throughput ROWS * GROUPS * LANES MAC per cycle; latencies: docs/architecture.md.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_array #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 1,
    // Lanes of a group.
    parameter LANES = 16,
    // Tokens of an image, at most.
    parameter MAX_TOKENS = 64,
    // Lines of weight memory.
    parameter WEIGHT_DEPTH = 512,
    // Lane tiles whose biases and multipliers are held.
    parameter PARAM_SLOTS = 4,
    // Words of LANES bits of the FFN2 mask.
    parameter MASK_DEPTH = 64,
    // Bits of a row's number.
    parameter BANK_W = 1,
    // Rows of tokens whose rotary positions are held; 0: none.
    parameter ROTARY_TOKENS = 0,
    // 1: DSP48E1 instances, 0: their behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire                      clk_i,
    input  wire [4+ROWS*GROUPS-1:0]  clear_i,      // copies of the reset, one for each part
    input  wire                      instr_valid_i,
    output wire                      instr_ready_o,
    input  wire [511:0]              instr_i,
    input  wire [95:0]               done_i,
    input  wire [95:0]               bands_i,
    // live tokens and gathered rows
    input  wire [15:0]               live_i,
    output wire                      set_live_o,
    output wire [15:0]               set_live_rows_o,
    output wire                      src_read_o,
    output wire [16*ROWS-1:0]        src_addr_o,
    input  wire [16*ROWS-1:0]        src_data_i,
    // scores, for the selection
    input  wire                      score_read_i,
    input  wire [15:0]               score_addr_i,
    output wire                      score_ready_o,
    output wire [23:0]               score_data_o,
    // token memory: fetchers, index r*GROUPS + g; the drain, never refused
    output wire [ROWS*GROUPS-1:0]    rd_valid_o,
    input  wire [ROWS*GROUPS-1:0]    rd_ready_i,
    output wire [BANK_W*ROWS*GROUPS-1:0] rd_bank_o,
    output wire [16*ROWS*GROUPS-1:0] rd_addr_o,
    input  wire [ROWS*GROUPS-1:0]    rd_dvalid_i,
    input  wire [64*ROWS*GROUPS-1:0] rd_data_i,
    output wire [ROWS-1:0]           tw_valid_o,
    output wire [16*ROWS-1:0]        tw_addr_o,
    output wire [64*ROWS-1:0]        tw_data_o,
    // residual memory, never refused; read data two cycles after res_rd_o
    output wire                      res_rd_o,
    output wire [15:0]               res_raddr_o,
    input  wire [16*ROWS*GROUPS-1:0] res_rdata_i,
    output wire [ROWS*GROUPS-1:0]    res_we_o,
    output wire                      res_busy_o,
    output wire [15:0]               res_waddr_o,
    output wire [16*ROWS*GROUPS-1:0] res_wdata_o,
    // loads: lines, lane-tile parameters, and the FFN2 mask
    input  wire                      ww_valid_i,
    output wire                      ww_ready_o,
    input  wire [7:0]                ww_group_i,
    input  wire [15:0]               ww_line_i,
    input  wire [8*LANES-1:0]        ww_data_i,
    input  wire                      pw_valid_i,
    input  wire [`PW_ALL]            pw_i,
    input  wire                      ro_valid_i,
    input  wire [`RO_ALL]            ro_i,
    input  wire                      move_valid_i,
    input  wire [`MV_ALL]            move_i,
    input  wire                      mask_read_i,
    input  wire [15:0]               mask_addr_i,
    output wire [LANES-1:0]          mask_data_o,
    // records: {eor, last, word}
    output wire                      rec_valid_o,
    input  wire                      rec_ready_i,
    output wire [63:0]               rec_data_o,
    output wire                      rec_eor_o,
    output wire                      rec_last_o,
    input  wire [31:0]               cycles_i,
    input  wire [31:0]               fires_i,
    // progress, and what is counted
    output reg  [15:0]               exec_done_o,
    output wire [15:0]               drain_done_o,
    output wire [15:0]               drain_bands_o,
    output wire                      exec_busy_o,
    output wire                      drain_busy_o,
    output wire                      softmax_busy_o,
    output wire                      fire_any_o,
    output wire [7:0]                fires_o,
    output wire [3:0]                ffn2_nonzeros_o,
    output wire [7:0]                pv_nonzeros_o,
    output wire                      wait_data_o,
    output wire                      wait_drain_o,
    output wire                      wait_steal_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam AW = $clog2(WEIGHT_DEPTH);
  localparam C_EXEC = 0, C_ISSUE = 1, C_DRAIN = 2, C_SOFTMAX = 3, C_FETCH = 4;

  generate
    if (ROTARY_TOKENS != 0 && ROTARY_TOKENS < MAX_TOKENS) begin : g_bad_rotary
      illegal_parameter_array_rotary_tokens_must_be_0_or_at_least_max_tokens u_bad ();
    end
    if (WEIGHT_DEPTH <= LANES || WEIGHT_DEPTH > 65536) begin : g_bad_depth
      illegal_parameter_array_weight_depth_must_be_above_lanes_and_at_most_65536 u_bad ();
    end
  endgenerate

  // ---------------------------------------------------------------- tiles
  wire              tile_valid, issue_ready, drain_ready;
  wire [`T_ALL]     tile;
  wire [N-1:0]      fetch_ready;
  wire              tile_ready = issue_ready && drain_ready && (&fetch_ready);
  wire              tile_push = tile_valid && tile_ready;
  wire              attn_start, exec_busy;
  wire [15:0]       rows, softmax_bands;
  rowvit_exec #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .BANK_W(BANK_W)
  ) u_exec (
      .clk_i(clk_i), .rst_ni(!clear_i[C_EXEC]),
      .instr_valid_i(instr_valid_i), .instr_ready_o(instr_ready_o), .instr_i(instr_i),
      .done_i(done_i), .bands_i(bands_i),
      .live_i(live_i), .set_live_o(set_live_o), .set_live_rows_o(set_live_rows_o),
      .src_read_o(src_read_o), .src_addr_o(src_addr_o), .src_data_i(src_data_i),
      .attn_start_o(attn_start), .rows_o(rows), .softmax_bands_i(softmax_bands),
      .tile_valid_o(tile_valid), .tile_ready_i(tile_ready), .tile_o(tile), .busy_o(exec_busy)
  );
  assign exec_busy_o = exec_busy || drain_busy_o;

  // ---------------------------------------------------------------- fetchers
  wire [ROWS-1:0]        tile_rows = tile[`T_ROWS];
  wire [7:0]             tile_groups = tile[`T_GROUPS];
  wire [BANK_W*ROWS-1:0] tile_bank = tile[`T_BANK];
  wire [16*N-1:0]        tile_addr = tile[`T_ADDR];
  wire [N-1:0]           x_valid, x_ready, x_last;
  wire [9*N-1:0]         x_data;
  wire [11*N-1:0]        x_idx;
  genvar r, g;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_fetch
        localparam I = r * GROUPS + g;
        localparam [7:0] G = g;
        wire mine = tile_push && !tile[`T_NULL] && tile_rows[r]
                    && (tile[`T_SHARED] ? g == 0 : G < tile_groups);
        rowvit_fetch #(
            .LANES(LANES), .BANK_W(BANK_W)
        ) u_fetch (
            .clk_i(clk_i), .rst_ni(!clear_i[C_FETCH+I]),
            .cmd_valid_i(mine), .cmd_ready_o(fetch_ready[I]),
            .cmd_sparse_i(tile[`T_SPARSE]), .cmd_unsigned_i(tile[`T_UNSIGNED]),
            .cmd_bank_i(tile_bank[BANK_W*r+:BANK_W]), .cmd_addr_i(tile_addr[16*I+:16]),
            .cmd_count_i(tile[`T_COUNT]),
            .rd_valid_o(rd_valid_o[I]), .rd_ready_i(rd_ready_i[I]), .rd_bank_o(rd_bank_o[BANK_W*I+:BANK_W]),
            .rd_addr_o(rd_addr_o[16*I+:16]), .rd_dvalid_i(rd_dvalid_i[I]),
            .rd_data_i(rd_data_i[64*I+:64]),
            .x_valid_o(x_valid[I]), .x_ready_i(x_ready[I]), .x_data_o(x_data[9*I+:9]),
            .x_idx_o(x_idx[11*I+:11]), .x_last_o(x_last[I])
        );
      end
    end
  endgenerate

  // ---------------------------------------------------------------- array
  wire                    captured, shadow_release, exec_done;
  wire [26*LANES*N-1:0]   shadow;
  wire                    dw_next;
  wire [GROUPS-1:0]       dw_valid, wr_valid;
  wire [`WW_ALL]          dw;
  wire [AW*GROUPS-1:0]    wr_line;
  wire [LANES*GROUPS-1:0] wr_be;
  wire [8*LANES-1:0]      wr_data;
  wire [64*GROUPS-1:0]    wr_clear;
  rowvit_line_write #(
      .GROUPS(GROUPS), .LANES(LANES), .AW(AW)
  ) u_write (
      .clk_i(clk_i), .rst_ni(!clear_i[C_ISSUE]),
      .dw_next_i(dw_next), .dw_valid_i(dw_valid), .dw_i(dw),
      .load_valid_i(ww_valid_i), .load_ready_o(ww_ready_o), .load_group_i(ww_group_i),
      .load_line_i(ww_line_i), .load_data_i(ww_data_i),
      .wr_valid_o(wr_valid), .wr_line_o(wr_line), .wr_be_o(wr_be), .wr_data_o(wr_data), .wr_clear_o(wr_clear)
  );
  rowvit_issue #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .WEIGHT_DEPTH(WEIGHT_DEPTH), .AW(AW),
      .USE_DSP(USE_DSP)
  ) u_issue (
      .clk_i(clk_i), .rst_ni(!clear_i[C_ISSUE]),
      .tile_valid_i(tile_push), .tile_ready_o(issue_ready), .tile_i(tile[`T_ISSUE]),
      .x_valid_i(x_valid), .x_ready_o(x_ready), .x_data_i(x_data), .x_idx_i(x_idx), .x_last_i(x_last),
      .wr_valid_i(wr_valid), .wr_line_i(wr_line), .wr_be_i(wr_be), .wr_data_i(wr_data), .wr_clear_i(wr_clear),
      .captured_o(captured), .release_i(shadow_release), .shadow_o(shadow),
      .op_done_o(exec_done), .fire_any_o(fire_any_o), .fires_o(fires_o),
      .ffn2_nonzeros_o(ffn2_nonzeros_o), .pv_nonzeros_o(pv_nonzeros_o),
      .wait_data_o(wait_data_o), .wait_drain_o(wait_drain_o), .wait_steal_o(wait_steal_o)
  );
  always @(posedge clk_i) begin
    if (exec_done) exec_done_o <= exec_done_o + 16'd1;
    if (clear_i[C_ISSUE]) exec_done_o <= 16'd0;
  end

  // ---------------------------------------------------------------- drain and softmax
  wire             s_valid, recip_band, p_idle;
  wire [`S_ALL]    s;
  wire [17*N-1:0]  recip_r;
  wire [5*N-1:0]   recip_n;
  wire [ROWS-1:0]  p_feed;
  wire [`P_ALL]    p;
  wire [N-1:0]     p_closed;
  rowvit_drain #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .AW(AW), .PARAM_SLOTS(PARAM_SLOTS),
      .MASK_DEPTH(MASK_DEPTH), .BANK_W(BANK_W), .ROTARY_TOKENS(ROTARY_TOKENS), .USE_DSP(USE_DSP)
  ) u_drain (
      .clk_i(clk_i), .rst_ni(!clear_i[C_DRAIN]),
      .tile_valid_i(tile_push), .tile_ready_o(drain_ready), .tile_i(tile[`T_DRAIN]), .instr_i(instr_i),
      .captured_i(captured), .release_o(shadow_release), .shadow_i(shadow),
      .pw_valid_i(pw_valid_i), .pw_i(pw_i),
      .ro_valid_i(ro_valid_i), .ro_i(ro_i), .move_valid_i(move_valid_i), .move_i(move_i),
      .s_valid_o(s_valid), .s_o(s), .recip_band_o(recip_band), .recip_r_i(recip_r), .recip_n_i(recip_n),
      .p_feed_i(p_feed), .p_i(p), .p_closed_o(p_closed), .p_idle_o(p_idle),
      .tw_valid_o(tw_valid_o), .tw_addr_o(tw_addr_o), .tw_data_o(tw_data_o),
      .ww_next_o(dw_next), .ww_valid_o(dw_valid), .ww_o(dw),
      .res_rd_o(res_rd_o), .res_raddr_o(res_raddr_o), .res_rdata_i(res_rdata_i),
      .res_we_o(res_we_o), .res_busy_o(res_busy_o), .res_waddr_o(res_waddr_o), .res_wdata_o(res_wdata_o),
      .mask_read_i(mask_read_i), .mask_addr_i(mask_addr_i), .mask_data_o(mask_data_o),
      .rec_valid_o(rec_valid_o), .rec_ready_i(rec_ready_i), .rec_data_o(rec_data_o),
      .rec_eor_o(rec_eor_o), .rec_last_o(rec_last_o), .cycles_i(cycles_i), .fires_i(fires_i),
      .done_o(drain_done_o), .bands_o(drain_bands_o), .busy_o(drain_busy_o)
  );
  rowvit_softmax #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .MAX_TOKENS(MAX_TOKENS)
  ) u_softmax (
      .clk_i(clk_i), .rst_ni(!clear_i[C_SOFTMAX]),
      .op_start_i(attn_start), .cfg_live_i(rows), .cfg_groups_i(instr_i[F_ATTN_GROUPS+:8]),
      .cfg_p_base_i(instr_i[F_ATTN_P_BASE+:16]), .cfg_p_stride_i(instr_i[F_ATTN_P_STRIDE+:16]),
      .cfg_score_i(instr_i[F_FLAGS+FLAG_SCORE]), .cfg_score_clear_i(instr_i[F_FLAGS+FLAG_SCORE_CLEAR]),
      .cfg_table_i(instr_i[F_ATTN_TABLE+:16]),
      .s_valid_i(s_valid), .s_token_i(s[`S_TOKEN]), .s_first_i(s[`S_FIRST]), .s_last_i(s[`S_LAST]),
      .s_data_i(s[`S_DATA]),
      .p_feed_o(p_feed), .p_data_o(p[`P_DATA]), .p_keep_o(p[`P_KEEP]), .p_base_o(p[`P_BASE]),
      .p_closed_i(p_closed), .p_idle_i(p_idle),
      .bands_o(softmax_bands),
      .recip_band_i(recip_band), .recip_r_o(recip_r), .recip_n_o(recip_n),
      .score_read_i(score_read_i), .score_addr_i(score_addr_i), .score_ready_o(score_ready_o),
      .score_data_o(score_data_o),
      .busy_o(softmax_busy_o)
  );
endmodule
`default_nettype wire
