// SPDX-License-Identifier: Apache-2.0
// The accelerator without its AXI boundary: engines, memories and what connects them.
//   dispatch -> queues -> load_engine | exec -> fetch -> issue (array) -> drain | norm | select | recv
// Memories: token_memory (activations), weight_memory (in issue), residual_memory.
// Throughput ROWS * GROUPS * LANES MAC per cycle; latencies: docs/architecture.md.
`default_nettype none
module rowvit_core #(  // as in rowvit_top
    parameter [31:0] CONFIG_HASH = 32'h0,
    parameter ROWS = 2,
    parameter GROUPS = 1,
    parameter LANES = 16,
    parameter WEIGHT_DEPTH = 512,
    parameter TOKEN_DEPTH = 2048,
    parameter RESIDUAL_DEPTH = 1024,
    parameter MAX_TOKENS = 64,
    parameter MAX_DIM = 256,
    parameter PARAM_SLOTS = 4,
    parameter NORM_SLOTS = 2,
    parameter MASK_DEPTH = 64,
    parameter PORT_BITS = 64,
    parameter USE_DSP = 0,    // 1: DSP48E1 instances, 0: their behavioural twin
    parameter RAM_STYLE = "auto"  // of token and residual memory: "ultra" for UltraRAM
) (
    input  wire         clk_i,
    input  wire         rst_ni,
    input  wire         start_i,
    input  wire         reset_i,
    input  wire [63:0]  base_i,
    input  wire [31:0]  program_i,
    input  wire [31:0]  length_i,
    input  wire [15:0]  passes_i,
    input  wire [31:0]  watchdog_i,
    output wire         busy_o,
    output wire         pass_done_o,
    output wire         error_valid_o,
    output wire [7:0]   error_code_o,
    output wire [23:0]  error_info_o,
    output wire [95:0]  done_o,
    output wire [15:0]  live_o,
    output wire [639:0] counters_o,
    // reader
    output wire         req0_valid_o,
    input  wire         req0_ready_i,
    output wire [63:0]  req0_addr_o,
    output wire [31:0]  req0_bytes_o,
    input  wire         rsp0_valid_i,
    output wire         rsp0_ready_o,
    input  wire [PORT_BITS-1:0] rsp0_data_i,
    output wire         req1_valid_o,
    input  wire         req1_ready_i,
    output wire [63:0]  req1_addr_o,
    output wire [31:0]  req1_bytes_o,
    input  wire         rsp1_valid_i,
    output wire         rsp1_ready_o,
    input  wire [PORT_BITS-1:0] rsp1_data_i,
    input  wire         reader_busy_i,
    input  wire         reader_beat_i,
    input  wire         reader_error_i,
    output wire         reader_clear_o,
    // streams
    input  wire [63:0]  s_axis_tdata,
    input  wire         s_axis_tvalid,
    output wire         s_axis_tready,
    input  wire         s_axis_tlast,
    output wire [63:0]  m_axis_tdata,
    output wire [7:0]   m_axis_tkeep,
    output wire         m_axis_tvalid,
    input  wire         m_axis_tready,
    output wire         m_axis_tlast
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam AW = $clog2(WEIGHT_DEPTH);
  localparam BANK_W = $clog2(ROWS);

  // ---------------------------------------------------------------- run state and errors
  // Start and resets go through a register; what they clear is cleared by a copy for each block.
  localparam C_CORE = 0, C_DISPATCH = 1, C_LOAD = 2, C_EXEC = 3, C_ISSUE = 4, C_DRAIN = 5, C_SOFTMAX = 6,
             C_SELECT = 7, C_NORM = 8, C_RECV = 9, C_TOKENS = 10, C_COUNTERS = 11, C_FETCH = 13,
             N_CLEAR = C_FETCH + N;
  wire [N_CLEAR-1:0] clear;
  rowvit_copies #(
      .N(N_CLEAR)
  ) u_clear (
      .clk_i(clk_i), .d_i(!rst_ni || start_i || reset_i), .q_o(clear)
  );
  reg  start_q, stop_q, run_q, error_q;
  reg  [7:0]  error_code_q;
  reg  [23:0] error_info_q;
  reg  [15:0] passes_left_q;
  assign reader_clear_o = clear[C_CORE];
  assign busy_o = (run_q && !stop_q) || start_q || error_q;
  assign pass_done_o = m_axis_tvalid && m_axis_tready && m_axis_tlast && !stop_q;

  wire        dispatch_error, load_error, recv_error, watchdog_error;
  wire [7:0]  dispatch_code, load_code, recv_code;
  wire [23:0] dispatch_info, load_info, recv_info;
  assign error_valid_o = error_q;
  assign error_code_o = error_code_q;
  assign error_info_o = error_info_q;

  always @(posedge clk_i) begin
    error_q <= run_q && !error_q && (dispatch_error || load_error || reader_error_i || recv_error
                                     || watchdog_error);
    error_code_q <= dispatch_error ? dispatch_code
                  : load_error ? load_code
                  : reader_error_i ? ERROR_AXI_READ[7:0]
                  : recv_error ? recv_code : ERROR_WATCHDOG[7:0];
    error_info_q <= dispatch_error ? dispatch_info : load_error ? load_info
                  : recv_error ? recv_info : 24'd0;
    if (clear[C_CORE] || reset_i) error_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    start_q <= start_i;
    stop_q  <= !rst_ni || reset_i;
    if (pass_done_o) begin
      passes_left_q <= passes_left_q - 16'd1;
      if (passes_left_q == 16'd1) run_q <= 1'b0;
    end
    if (error_q) run_q <= 1'b0;
    if (start_q) begin
      run_q         <= passes_i != 16'd0;
      passes_left_q <= passes_i;
    end
    if (stop_q) run_q <= 1'b0;
  end

  // ---------------------------------------------------------------- progress
  wire [15:0] done_load, done_drain, done_norm, done_select, done_recv;
  wire [15:0] bands_drain, bands_norm, bands_recv;
  reg  [15:0] done_exec;
  // per engine; LOAD, EXEC and SELECT are awaited as whole operations
  wire [16*N_ENGINE-1:0] done, bands;
  assign done[16*E_LOAD+:16]    = done_load;
  assign done[16*E_EXEC+:16]    = done_exec;
  assign done[16*E_DRAIN+:16]   = done_drain;
  assign done[16*E_NORM+:16]    = done_norm;
  assign done[16*E_SELECT+:16]  = done_select;
  assign done[16*E_RECV+:16]    = done_recv;
  assign bands[16*E_LOAD+:16]   = 16'd0;
  assign bands[16*E_EXEC+:16]   = 16'd0;
  assign bands[16*E_DRAIN+:16]  = bands_drain;
  assign bands[16*E_NORM+:16]   = bands_norm;
  assign bands[16*E_SELECT+:16] = 16'd0;
  assign bands[16*E_RECV+:16]   = bands_recv;
  assign done_o = done;

  // ---------------------------------------------------------------- instructions
  wire         q_load_valid, q_exec_valid, q_norm_valid, q_select_valid, q_recv_valid;
  wire         q_load_ready, q_exec_ready, q_norm_ready, q_select_ready, q_recv_ready;
  wire [INSTR_W-1:0] q_load, q_exec, q_norm, q_select, q_recv;
  rowvit_dispatch #(
      .CONFIG_HASH(CONFIG_HASH), .PORT_BITS(PORT_BITS)
  ) u_dispatch (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear[C_DISPATCH]),
      .start_i(start_q), .base_i(base_i), .program_i(program_i), .length_i(length_i),
      .passes_i(passes_i),
      .req_valid_o(req0_valid_o), .req_ready_i(req0_ready_i), .req_addr_o(req0_addr_o),
      .req_bytes_o(req0_bytes_o),
      .rsp_valid_i(rsp0_valid_i), .rsp_ready_o(rsp0_ready_o), .rsp_data_i(rsp0_data_i),
      .q0_valid_o(q_load_valid), .q0_ready_i(q_load_ready), .q0_instr_o(q_load),
      .q1_valid_o(q_exec_valid), .q1_ready_i(q_exec_ready), .q1_instr_o(q_exec),
      .q2_valid_o(q_norm_valid), .q2_ready_i(q_norm_ready), .q2_instr_o(q_norm),
      .q3_valid_o(q_select_valid), .q3_ready_i(q_select_ready), .q3_instr_o(q_select),
      .q4_valid_o(q_recv_valid), .q4_ready_i(q_recv_ready), .q4_instr_o(q_recv),
      .busy_o(), .error_valid_o(dispatch_error), .error_code_o(dispatch_code),
      .error_info_o(dispatch_info)
  );

  // ---------------------------------------------------------------- live tokens
  wire        set_live, kept_set;
  wire [15:0] set_live_rows, kept_rows, live_load, live_exec, live_norm, live_select;
  rowvit_live #(
      .N(4), .MAX_TOKENS(MAX_TOKENS)
  ) u_live (
      .clk_i(clk_i), .rst_ni(!clear[C_CORE]),
      .set_valid_i(set_live), .set_image_i(q_exec[F_IMAGE+:4]), .set_rows_i(set_live_rows),
      .kept_valid_i(kept_set), .kept_image_i(q_select[F_IMAGE+:4]), .kept_rows_i(kept_rows),
      .image_i({q_select[F_IMAGE+:4], q_norm[F_IMAGE+:4], q_exec[F_IMAGE+:4], q_load[F_IMAGE+:4]}),
      .live_o({live_select, live_norm, live_exec, live_load}), .last_o(live_o)
  );

  // ---------------------------------------------------------------- loads
  wire               ww_valid, ww_ready;
  wire [7:0]         ww_group;
  wire [15:0]        ww_line;
  wire [8*LANES-1:0] ww_data;
  wire               pw_valid, nw_valid, rw_valid, rw_ready;
  wire [7:0]         pw_group, pw_slot, pw_lane, nw_group, nw_slot;
  wire [15:0]        nw_index, rw_addr, mask_addr;
  wire [47:0]        pw_data, nw_data;
  wire [16*N-1:0]    rw_data;
  wire [LANES-1:0]   mask_data;
  wire               load_busy, load_wait;
  wire [15:0]        w2_fetched, w2_rows;
  rowvit_load_engine #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .PORT_BITS(PORT_BITS)
  ) u_load (
      .clk_i(clk_i), .rst_ni(!clear[C_LOAD]),
      .instr_valid_i(q_load_valid), .instr_ready_o(q_load_ready), .instr_i(q_load),
      .done_i(done), .bands_i(bands), .base_i(base_i), .length_i(length_i), .live_i(live_load),
      .req_valid_o(req1_valid_o), .req_ready_i(req1_ready_i), .req_addr_o(req1_addr_o),
      .req_bytes_o(req1_bytes_o),
      .rsp_valid_i(rsp1_valid_i), .rsp_ready_o(rsp1_ready_o), .rsp_data_i(rsp1_data_i),
      .ww_valid_o(ww_valid), .ww_ready_i(ww_ready), .ww_group_o(ww_group), .ww_line_o(ww_line),
      .ww_data_o(ww_data),
      .pw_valid_o(pw_valid), .pw_group_o(pw_group), .pw_slot_o(pw_slot), .pw_lane_o(pw_lane),
      .pw_data_o(pw_data),
      .nw_valid_o(nw_valid), .nw_group_o(nw_group), .nw_slot_o(nw_slot), .nw_index_o(nw_index),
      .nw_data_o(nw_data),
      .rw_valid_o(rw_valid), .rw_ready_i(rw_ready), .rw_addr_o(rw_addr), .rw_data_o(rw_data),
      .mask_addr_o(mask_addr), .mask_data_i(mask_data),
      .done_o(done_load), .error_valid_o(load_error), .error_code_o(load_code),
      .error_info_o(load_info), .busy_o(load_busy), .wait_o(load_wait),
      .w2_fetched_o(w2_fetched), .w2_rows_o(w2_rows)
  );

  // ---------------------------------------------------------------- array
  wire               tile_valid, tile_null, tile_op_last, tile_shared, tile_sparse, tile_unsigned;
  wire               tile_pv, tile_s, tile_gather, tile_s_first, tile_s_last, tile_mask_end;
  wire [15:0]        tile_wbase, tile_band, tile_dst, tile_token, tile_mask;
  wire [7:0]         tile_groups;
  wire [ROWS-1:0]    tile_rows;
  wire [10:0]        tile_count;
  wire [16*N-1:0]    tile_addr;
  wire [BANK_W*ROWS-1:0] tile_bank;
  wire [16*ROWS-1:0] tile_res_src, src_addr, src_data;
  wire               attn_start, exec_busy, exec_done;
  wire [15:0]        rows, softmax_bands;
  wire               issue_ready, drain_ready;
  wire [N-1:0]       fetch_ready;
  wire               tile_ready = issue_ready && drain_ready && (&fetch_ready);
  wire               tile_push = tile_valid && tile_ready;
  rowvit_exec #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .BANK_W(BANK_W)
  ) u_exec (
      .clk_i(clk_i), .rst_ni(!clear[C_EXEC]),
      .instr_valid_i(q_exec_valid), .instr_ready_o(q_exec_ready), .instr_i(q_exec),
      .done_i(done), .bands_i(bands),
      .live_i(live_exec), .set_live_o(set_live), .set_live_rows_o(set_live_rows),
      .src_addr_o(src_addr), .src_data_i(src_data),
      .attn_start_o(attn_start), .rows_o(rows), .softmax_bands_i(softmax_bands),
      .tile_valid_o(tile_valid), .tile_ready_i(tile_ready), .tile_null_o(tile_null),
      .tile_op_last_o(tile_op_last), .tile_shared_o(tile_shared), .tile_sparse_o(tile_sparse),
      .tile_unsigned_o(tile_unsigned), .tile_pv_o(tile_pv), .tile_s_o(tile_s),
      .tile_wbase_o(tile_wbase), .tile_groups_o(tile_groups), .tile_rows_o(tile_rows),
      .tile_count_o(tile_count), .tile_addr_o(tile_addr), .tile_bank_o(tile_bank),
      .tile_band_o(tile_band), .tile_dst_o(tile_dst), .tile_gather_o(tile_gather),
      .tile_res_src_o(tile_res_src), .tile_s_first_o(tile_s_first), .tile_s_last_o(tile_s_last),
      .tile_token_o(tile_token), .tile_mask_end_o(tile_mask_end), .tile_mask_o(tile_mask),
      .busy_o(exec_busy)
  );

  wire [N-1:0]        rd_valid, rd_ready, rd_dvalid, x_valid, x_ready, x_last;
  wire [BANK_W*N-1:0] rd_bank;
  wire [16*N-1:0]     rd_addr;
  wire [64*N-1:0]     rd_data;
  wire [9*N-1:0]      x_data;
  wire [11*N-1:0]     x_idx;
  genvar r, g;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_fetch
        localparam I = r * GROUPS + g;
        localparam [7:0] G = g;
        wire mine = tile_push && !tile_null && tile_rows[r] && (tile_shared ? g == 0 : G < tile_groups);
        rowvit_fetch #(
            .LANES(LANES), .BANK_W(BANK_W)
        ) u_fetch (
            .clk_i(clk_i), .rst_ni(!clear[C_FETCH+I]),
            .cmd_valid_i(mine), .cmd_ready_o(fetch_ready[I]),
            .cmd_sparse_i(tile_sparse), .cmd_unsigned_i(tile_unsigned),
            .cmd_bank_i(tile_bank[BANK_W*r+:BANK_W]), .cmd_addr_i(tile_addr[16*I+:16]),
            .cmd_count_i(tile_count),
            .rd_valid_o(rd_valid[I]), .rd_ready_i(rd_ready[I]), .rd_bank_o(rd_bank[BANK_W*I+:BANK_W]),
            .rd_addr_o(rd_addr[16*I+:16]), .rd_dvalid_i(rd_dvalid[I]), .rd_data_i(rd_data[64*I+:64]),
            .x_valid_o(x_valid[I]), .x_ready_i(x_ready[I]), .x_data_o(x_data[9*I+:9]),
            .x_idx_o(x_idx[11*I+:11]), .x_last_o(x_last[I])
        );
      end
    end
  endgenerate

  wire                  captured, shadow_release;
  wire [26*LANES*N-1:0] shadow;
  wire [GROUPS-1:0]     dw_valid, iw_valid;
  wire [AW-1:0]         dw_line;
  wire [LANES-1:0]      dw_be;
  wire                  dw_next;
  wire [64*GROUPS-1:0]  dw_clear;
  wire [AW*GROUPS-1:0]  iw_line;
  wire [LANES*GROUPS-1:0] iw_be;
  wire                  fire_any, wait_data, wait_drain, wait_steal;
  wire [7:0]            fires, pv_nonzeros;
  wire [3:0]            ffn2_nonzeros;

  // Weight writes: the drain (K^T, V) goes first, a loaded line waits. The drain's line is all ones
  // but for the bits that it clears; it waits a cycle for what announces it, which goes to many registers.
  // (The tile counts as complete much later.)
  localparam PARTS = 4;
  wire [PARTS:0]        ones;
  reg  [GROUPS-1:0]     dw_valid_q;
  reg  [AW-1:0]         dw_line_q;
  reg  [LANES-1:0]      dw_be_q;
  reg  [64*GROUPS-1:0]  dw_clear_q;
  reg  [AW-1:0]         line_q;
  reg  [8*LANES-1:0]    line_data_q;
  rowvit_copies #(
      .N(PARTS + 1)
  ) u_ones (
      .clk_i(clk_i), .d_i(dw_next), .q_o(ones)
  );
  assign ww_ready = !ones[PARTS];
  always @(posedge clk_i) begin
    dw_valid_q   <= dw_valid;
    dw_line_q    <= dw_line;
    dw_be_q      <= dw_be;
    dw_clear_q   <= dw_clear;
    line_q       <= ww_line[AW-1:0];
    if (clear[C_CORE]) dw_valid_q <= {GROUPS{1'b0}};
  end
  generate
    for (g = 0; g < PARTS; g = g + 1) begin : g_line
      localparam W = 8 * LANES / PARTS;
      always @(posedge clk_i) line_data_q[W*g+:W] <= ones[g] ? {W{1'b1}} : ww_data[W*g+:W];
    end
  endgenerate
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_wwrite
      localparam [7:0] G = g;
      reg line_valid_q;
      always @(posedge clk_i) begin
        line_valid_q <= ww_valid && !ones[PARTS] && ww_group == G;
        if (clear[C_CORE]) line_valid_q <= 1'b0;
      end
      assign iw_valid[g] = dw_valid_q[g] || line_valid_q;
      assign iw_line[AW*g+:AW] = dw_valid_q[g] ? dw_line_q : line_q;
      assign iw_be[LANES*g+:LANES] = dw_valid_q[g] ? dw_be_q : {LANES{1'b1}};
    end
  endgenerate

  rowvit_issue #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .WEIGHT_DEPTH(WEIGHT_DEPTH), .AW(AW),
      .USE_DSP(USE_DSP)
  ) u_issue (
      .clk_i(clk_i), .rst_ni(!clear[C_ISSUE]),
      .tile_valid_i(tile_push), .tile_ready_o(issue_ready), .tile_null_i(tile_null),
      .tile_op_last_i(tile_op_last), .tile_shared_i(tile_shared), .tile_sparse_i(tile_sparse),
      .tile_pv_i(tile_pv), .tile_wbase_i(tile_wbase), .tile_groups_i(tile_groups),
      .tile_rows_i(tile_rows),
      .x_valid_i(x_valid), .x_ready_o(x_ready), .x_data_i(x_data), .x_idx_i(x_idx),
      .x_last_i(x_last),
      .wr_valid_i(iw_valid), .wr_line_i(iw_line), .wr_be_i(iw_be), .wr_data_i(line_data_q),
      .wr_clear_i(dw_clear_q),
      .captured_o(captured), .release_i(shadow_release), .shadow_o(shadow),
      .op_done_o(exec_done), .fire_any_o(fire_any), .fires_o(fires),
      .ffn2_nonzeros_o(ffn2_nonzeros), .pv_nonzeros_o(pv_nonzeros),
      .wait_data_o(wait_data), .wait_drain_o(wait_drain), .wait_steal_o(wait_steal)
  );
  always @(posedge clk_i) begin
    if (exec_done) done_exec <= done_exec + 16'd1;
    if (clear[C_CORE]) done_exec <= 16'd0;
  end

  // ---------------------------------------------------------------- drain
  wire               s_valid, s_first, s_last, recip_band, drain_busy;
  wire [15:0]        s_token;
  wire [12*N-1:0]    s_data;
  wire [17*N-1:0]    recip_r;
  wire [5*N-1:0]     recip_n;
  wire [ROWS-1:0]    p_feed;
  wire [8*N-1:0]     p_data;
  wire [N-1:0]       p_keep, p_closed;
  wire [16*GROUPS-1:0] p_base;
  wire               p_idle;
  wire [ROWS-1:0]    dt_valid;
  wire [16*ROWS-1:0] dt_addr;
  wire [64*ROWS-1:0] dt_data;
  wire               res_rd;
  wire [15:0]        res_raddr, res_waddr;
  wire [16*N-1:0]    res_rdata, res_wdata;
  wire [N-1:0]       res_we;
  wire               res_busy;
  wire               rec_valid, rec_ready, rec_eor, rec_last;
  wire [63:0]        rec_data;
  rowvit_drain #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .AW(AW), .PARAM_SLOTS(PARAM_SLOTS),
      .MASK_DEPTH(MASK_DEPTH), .BANK_W(BANK_W)
  ) u_drain (
      .clk_i(clk_i), .rst_ni(!clear[C_DRAIN]),
      .tile_valid_i(tile_push), .tile_ready_o(drain_ready), .tile_null_i(tile_null),
      .tile_op_last_i(tile_op_last), .tile_pv_i(tile_pv), .tile_s_i(tile_s),
      .tile_groups_i(tile_groups), .tile_rows_i(tile_rows), .tile_band_i(tile_band),
      .tile_dst_i(tile_dst), .tile_gather_i(tile_gather), .tile_res_src_i(tile_res_src),
      .tile_bank_i(tile_bank), .tile_s_first_i(tile_s_first), .tile_s_last_i(tile_s_last),
      .tile_token_i(tile_token), .tile_mask_end_i(tile_mask_end), .tile_mask_i(tile_mask),
      .instr_i(q_exec),
      .captured_i(captured), .release_o(shadow_release), .shadow_i(shadow),
      .pw_valid_i(pw_valid), .pw_group_i(pw_group), .pw_slot_i(pw_slot), .pw_lane_i(pw_lane),
      .pw_data_i(pw_data),
      .s_valid_o(s_valid), .s_token_o(s_token), .s_first_o(s_first), .s_last_o(s_last),
      .s_data_o(s_data), .recip_band_o(recip_band), .recip_r_i(recip_r), .recip_n_i(recip_n),
      .p_feed_i(p_feed), .p_data_i(p_data), .p_keep_i(p_keep), .p_base_i(p_base),
      .p_closed_o(p_closed), .p_idle_o(p_idle),
      .tw_valid_o(dt_valid), .tw_addr_o(dt_addr), .tw_data_o(dt_data),
      .ww_next_o(dw_next), .ww_valid_o(dw_valid), .ww_line_o(dw_line), .ww_be_o(dw_be),
      .ww_clear_o(dw_clear),
      .res_rd_o(res_rd), .res_raddr_o(res_raddr), .res_rdata_i(res_rdata),
      .res_we_o(res_we), .res_busy_o(res_busy), .res_waddr_o(res_waddr), .res_wdata_o(res_wdata),
      .mask_addr_i(mask_addr), .mask_data_o(mask_data),
      .rec_valid_o(rec_valid), .rec_ready_i(rec_ready), .rec_data_o(rec_data),
      .rec_eor_o(rec_eor), .rec_last_o(rec_last),
      .cycles_i(counters_o[32*CNT_CYCLES+:32]), .fires_i(counters_o[32*CNT_FIRES+:32]),
      .done_o(done_drain), .bands_o(bands_drain), .busy_o(drain_busy)
  );

  // ---------------------------------------------------------------- softmax and selection
  wire [15:0]        score_addr;
  wire               score_ready;
  wire [23:0]        score_data;
  wire               softmax_busy, select_busy;
  rowvit_softmax #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .MAX_TOKENS(MAX_TOKENS)
  ) u_softmax (
      .clk_i(clk_i), .rst_ni(!clear[C_SOFTMAX]),
      .op_start_i(attn_start), .cfg_live_i(rows), .cfg_groups_i(q_exec[F_ATTN_GROUPS+:8]),
      .cfg_p_base_i(q_exec[F_ATTN_P_BASE+:16]), .cfg_p_stride_i(q_exec[F_ATTN_P_STRIDE+:16]),
      .cfg_score_i(q_exec[F_FLAGS+FLAG_SCORE]), .cfg_score_clear_i(q_exec[F_FLAGS+FLAG_SCORE_CLEAR]),
      .cfg_table_i(q_exec[F_ATTN_TABLE+:16]),
      .s_valid_i(s_valid), .s_token_i(s_token), .s_first_i(s_first), .s_last_i(s_last),
      .s_data_i(s_data),
      .p_feed_o(p_feed), .p_data_o(p_data), .p_keep_o(p_keep), .p_base_o(p_base),
      .p_closed_i(p_closed), .p_idle_i(p_idle),
      .bands_o(softmax_bands),
      .recip_band_i(recip_band), .recip_r_o(recip_r), .recip_n_o(recip_n),
      .score_addr_i(score_addr), .score_ready_o(score_ready), .score_data_o(score_data), .busy_o(softmax_busy)
  );

  wire        kept_valid, kept_ready, kept_eor;
  wire [63:0] kept_data;
  rowvit_select #(
      .ROWS(ROWS), .MAX_TOKENS(MAX_TOKENS)
  ) u_select (
      .clk_i(clk_i), .rst_ni(!clear[C_SELECT]),
      .instr_valid_i(q_select_valid), .instr_ready_o(q_select_ready), .instr_i(q_select),
      .done_i(done), .bands_i(bands),
      .live_i(live_select), .kept_valid_o(kept_set), .kept_o(kept_rows),
      .score_addr_o(score_addr), .score_ready_i(score_ready), .score_data_i(score_data),
      .src_addr_i(src_addr), .src_data_o(src_data),
      .out_valid_o(kept_valid), .out_ready_i(kept_ready), .out_data_o(kept_data),
      .out_eor_o(kept_eor),
      .done_o(done_select), .busy_o(select_busy)
  );

  // ---------------------------------------------------------------- LayerNorm
  wire               nrd_valid, nrd_ready, norm_busy;
  wire [15:0]        nrd_addr;
  wire [ROWS-1:0]    nt_valid, nt_ready;
  wire [16*ROWS-1:0] nt_addr;
  wire [64*ROWS-1:0] nt_data;
  wire               dump_valid, dump_ready, dump_eor;
  wire [63:0]        dump_data;
  rowvit_norm_engine #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .MAX_DIM(MAX_DIM), .NORM_SLOTS(NORM_SLOTS)
  ) u_norm (
      .clk_i(clk_i), .rst_ni(!clear[C_NORM]),
      .instr_valid_i(q_norm_valid), .instr_ready_o(q_norm_ready), .instr_i(q_norm),
      .done_i(done), .bands_i(bands), .live_i(live_norm),
      .nw_valid_i(nw_valid), .nw_group_i(nw_group), .nw_slot_i(nw_slot), .nw_index_i(nw_index),
      .nw_data_i(nw_data),
      .rd_valid_o(nrd_valid), .rd_ready_i(nrd_ready), .rd_addr_o(nrd_addr), .rd_data_i(res_rdata),
      .tw_valid_o(nt_valid), .tw_ready_i(nt_ready), .tw_addr_o(nt_addr), .tw_data_o(nt_data),
      .out_valid_o(dump_valid), .out_ready_i(dump_ready), .out_data_o(dump_data),
      .out_eor_o(dump_eor),
      .done_o(done_norm), .bands_o(bands_norm), .busy_o(norm_busy)
  );

  rowvit_residual_memory #(
      .BANKS(N), .DEPTH(RESIDUAL_DEPTH), .RAM_STYLE(RAM_STYLE)
  ) u_residual (
      .clk_i(clk_i),
      .drain_busy_i(res_busy), .drain_we_i(res_we), .drain_waddr_i(res_waddr), .drain_wdata_i(res_wdata),
      .load_we_i(rw_valid), .load_ready_o(rw_ready), .load_waddr_i(rw_addr), .load_wdata_i(rw_data),
      .drain_rd_i(res_rd), .drain_raddr_i(res_raddr),
      .norm_rd_i(nrd_valid), .norm_rd_ready_o(nrd_ready), .norm_raddr_i(nrd_addr),
      .rdata_o(res_rdata)
  );

  // ---------------------------------------------------------------- input
  wire [ROWS-1:0]    rt_valid, rt_ready, dt_ready_unused;
  wire [15:0]        rt_addr;
  wire [63:0]        rt_data;
  wire               recv_ready, received, starved;
  // Nothing is taken from the stream while the core does not run, or before its RECV: no word is lost.
  assign s_axis_tready = recv_ready && run_q;
  rowvit_recv #(
      .ROWS(ROWS)
  ) u_recv (
      .clk_i(clk_i), .rst_ni(!clear[C_RECV]),
      .instr_valid_i(q_recv_valid), .instr_ready_o(q_recv_ready), .instr_i(q_recv),
      .done_i(done), .bands_i(bands),
      .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid && run_q), .s_axis_tready(recv_ready),
      .s_axis_tlast(s_axis_tlast),
      .tw_valid_o(rt_valid), .tw_ready_i(rt_ready), .tw_addr_o(rt_addr), .tw_data_o(rt_data),
      .done_o(done_recv), .bands_o(bands_recv),
      .word_o(received), .starved_o(starved), .error_valid_o(recv_error), .error_code_o(recv_code),
      .error_info_o(recv_info)
  );

  rowvit_token_memory #(
      .ROWS(ROWS), .DEPTH(TOKEN_DEPTH), .N_READ(N), .N_WRITE(3), .BANK_W(BANK_W),
      .RAM_STYLE(RAM_STYLE)
  ) u_tokens (
      .clk_i(clk_i), .rst_ni(!clear[C_TOKENS]),
      .w_valid_i({rt_valid, nt_valid, dt_valid}),
      .w_ready_o({rt_ready, nt_ready, dt_ready_unused}),
      .w_addr_i({{ROWS{rt_addr}}, nt_addr, dt_addr}),
      .w_data_i({{ROWS{rt_data}}, nt_data, dt_data}),
      .r_valid_i(rd_valid), .r_ready_o(rd_ready), .r_bank_i(rd_bank), .r_addr_i(rd_addr),
      .r_dvalid_o(rd_dvalid), .r_data_o(rd_data)
  );

  // ---------------------------------------------------------------- output
  wire sent;
  rowvit_send #(
      .N(3)
  ) u_send (
      .clk_i(clk_i), .rst_ni(!clear[C_RECV]),
      .in_valid_i({dump_valid, kept_valid, rec_valid}),
      .in_ready_o({dump_ready, kept_ready, rec_ready}),
      .in_data_i({dump_data, kept_data, rec_data}),
      .in_eor_i({dump_eor, kept_eor, rec_eor}),
      .in_last_i({2'b00, rec_last}),
      .m_axis_tdata(m_axis_tdata), .m_axis_tkeep(m_axis_tkeep), .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready), .m_axis_tlast(m_axis_tlast), .sent_o(sent)
  );

  // ---------------------------------------------------------------- counters and watchdog
  // What happens in a cycle is counted a cycle later. (CYCLES and FIRES, which MARK records have, come from
  // registers already.)
  wire [13:0] event_d = {exec_busy || drain_busy, fire_any, wait_data, wait_drain, wait_steal, drain_busy,
                         load_busy, load_wait, reader_beat_i, norm_busy, softmax_busy, select_busy, received,
                         sent};
  reg  [13:0] event_q;
  always @(posedge clk_i) begin
    event_q <= event_d;
    if (clear[C_CORE]) event_q <= 14'd0;
  end
  wire array_busy_q, fire_q, wait_data_q, wait_drain_q, wait_steal_q, drain_busy_q, load_busy_q, load_wait_q,
       beat_q, norm_busy_q, softmax_busy_q, select_busy_q, received_q, sent_q;
  assign {array_busy_q, fire_q, wait_data_q, wait_drain_q, wait_steal_q, drain_busy_q, load_busy_q,
          load_wait_q, beat_q, norm_busy_q, softmax_busy_q, select_busy_q, received_q, sent_q} = event_q;
  wire [16*N_COUNTER-1:0] inc;
  assign inc[16*CNT_CYCLES+:16]        = {15'd0, run_q};
  assign inc[16*CNT_EXEC_BUSY+:16]     = {15'd0, array_busy_q};
  assign inc[16*CNT_EXEC_FIRE+:16]     = {15'd0, fire_q};
  assign inc[16*CNT_FIRES+:16]         = {8'd0, fires};
  assign inc[16*CNT_FFN2_NONZEROS+:16] = {12'd0, ffn2_nonzeros};
  assign inc[16*CNT_PV_NONZEROS+:16]   = {8'd0, pv_nonzeros};
  assign inc[16*CNT_WAIT_DATA+:16]     = {15'd0, wait_data_q};
  assign inc[16*CNT_WAIT_DRAIN+:16]    = {15'd0, wait_drain_q};
  assign inc[16*CNT_WAIT_STEAL+:16]    = {15'd0, wait_steal_q};
  assign inc[16*CNT_DRAIN_BUSY+:16]    = {15'd0, drain_busy_q};
  assign inc[16*CNT_LOAD_BUSY+:16]     = {15'd0, load_busy_q};
  assign inc[16*CNT_LOAD_WAIT+:16]     = {15'd0, load_wait_q};
  localparam PORT_WORDS = PORT_BITS / 64;
  assign inc[16*CNT_AXI_BEATS+:16]     = beat_q ? PORT_WORDS[15:0] : 16'd0;
  assign inc[16*CNT_W2_FETCHED+:16]    = w2_fetched;
  assign inc[16*CNT_W2_ROWS+:16]       = w2_rows;
  assign inc[16*CNT_NORM_BUSY+:16]     = {15'd0, norm_busy_q};
  assign inc[16*CNT_SOFTMAX_BUSY+:16]  = {15'd0, softmax_busy_q};
  assign inc[16*CNT_SELECT_BUSY+:16]   = {15'd0, select_busy_q};
  assign inc[16*CNT_RECV_WORDS+:16]    = {15'd0, received_q};
  assign inc[16*CNT_SEND_WORDS+:16]    = {15'd0, sent_q};
  // In halves, as each has 32 registers to clear and to enable per counter.
  localparam HALF = N_COUNTER / 2;
  // What was under way before a reset or start is not counted.
  wire [1:0] counting;
  rowvit_copies #(
      .N(2)
  ) u_counting (
      .clk_i(clk_i), .d_i(run_q && !clear[C_CORE]), .q_o(counting)
  );
  generate
    for (g = 0; g < 2; g = g + 1) begin : g_counters
      rowvit_counters #(
          .N(HALF)
      ) u_counters (
          .clk_i(clk_i), .rst_ni(!clear[C_COUNTERS+g]),
          .en_i({HALF{counting[g]}} | (g == 0 ? {{(HALF - 1){1'b0}}, 1'b1} << CNT_CYCLES : {HALF{1'b0}})),
          .inc_i(inc[16*HALF*g+:16*HALF]), .count_o(counters_o[32*HALF*g+:32*HALF])
      );
    end
  endgenerate

  // Waiting for the host's input, or for room for its output, is not a hang.
  reg host_q;
  always @(posedge clk_i) host_q <= starved || (m_axis_tvalid && !m_axis_tready);
  rowvit_watchdog #(
      .WIDTH(192)
  ) u_watchdog (
      .clk_i(clk_i), .rst_ni(!clear[C_CORE]), .busy_i(run_q), .limit_i(watchdog_i),
      .progress_i({done, bands}),
      .event_i(received_q || sent_q || beat_q || fire_q || host_q), .error_o(watchdog_error)
  );

  wire unused = &{1'b0, reader_busy_i, dt_ready_unused};
endmodule
`default_nettype wire
