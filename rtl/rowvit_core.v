// SPDX-License-Identifier: Apache-2.0
// The accelerator without its AXI boundary: engines, memories and what connects them.
//   dispatch -> queues -> load_engine | exec -> fetch -> issue -> drain (array) | norm | select | recv
// Memories: token_memory (activations), weight_memory (in array), residual_memory.
// Throughput ROWS * GROUPS * LANES MAC per cycle; latencies: docs/architecture.md.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_core #(  // parameters as of rowvit_top
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
    parameter ROTARY_TOKENS = 64,
    parameter USE_DSP = 0,
    parameter RAM_STYLE = "auto"
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
  localparam BANK_W = $clog2(ROWS);

  // ---------------------------------------------------------------- run state and errors
  // Start and resets go through a register; what they clear is cleared by a copy for each block.
  localparam C_CORE = 0, C_DISPATCH = 1, C_LOAD = 2, C_SELECT = 3, C_NORM = 4, C_RECV = 5, C_TOKENS = 6,
             C_COUNTERS = 7, C_ARRAY = 9, N_CLEAR = C_ARRAY + 4 + N;
  wire [N_CLEAR-1:0] clear;
  rowvit_copies #(
      .N(N_CLEAR)
  ) u_clear (
      .clk_i(clk_i), .d_i(!rst_ni || start_i || reset_i), .q_o(clear)
  );
  assign reader_clear_o = clear[C_CORE];
  wire        start, run, dispatch_error, load_error, recv_error, watchdog_error;
  wire [7:0]  dispatch_code, load_code, recv_code;
  wire [23:0] dispatch_info, load_info, recv_info;
  rowvit_run u_run (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear[C_CORE]), .start_i(start_i), .reset_i(reset_i),
      .passes_i(passes_i), .pass_end_i(m_axis_tvalid && m_axis_tready && m_axis_tlast),
      .dispatch_error_i(dispatch_error), .dispatch_code_i(dispatch_code), .dispatch_info_i(dispatch_info),
      .load_error_i(load_error), .load_code_i(load_code), .load_info_i(load_info),
      .reader_error_i(reader_error_i),
      .recv_error_i(recv_error), .recv_code_i(recv_code), .recv_info_i(recv_info),
      .watchdog_error_i(watchdog_error),
      .start_o(start), .run_o(run), .busy_o(busy_o), .pass_done_o(pass_done_o),
      .error_valid_o(error_valid_o), .error_code_o(error_code_o), .error_info_o(error_info_o)
  );

  // Per engine; LOAD, EXEC and SELECT are awaited as whole operations.
  wire [16*N_ENGINE-1:0] done, bands;
  assign bands[16*E_LOAD+:16]   = 16'd0;
  assign bands[16*E_EXEC+:16]   = 16'd0;
  assign bands[16*E_SELECT+:16] = 16'd0;
  assign done_o = done;
  wire [`E_ALL] happens;
  wire [7:0]    fires, pv_nonzeros;
  wire [3:0]    ffn2_nonzeros;
  wire [15:0]   w2_fetched, w2_rows;

  // ---------------------------------------------------------------- instructions
  wire         q_load_valid, q_exec_valid, q_norm_valid, q_select_valid, q_recv_valid;
  wire         q_load_ready, q_exec_ready, q_norm_ready, q_select_ready, q_recv_ready;
  wire [INSTR_W-1:0] q_load, q_exec, q_norm, q_select, q_recv;
  rowvit_dispatch #(
      .CONFIG_HASH(CONFIG_HASH), .PORT_BITS(PORT_BITS)
  ) u_dispatch (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear[C_DISPATCH]),
      .start_i(start), .base_i(base_i), .program_i(program_i), .length_i(length_i),
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
  wire               pw_valid, nw_valid, rw_valid, rw_ready, ro_valid;
  wire [`PW_ALL]     pw;
  wire [`RO_ALL]     ro;
  wire [7:0]         nw_group, nw_slot;
  wire [15:0]        nw_index, rw_addr, mask_addr;
  wire               mask_read;
  wire [47:0]        nw_data;
  wire [16*N-1:0]    rw_data;
  wire [LANES-1:0]   mask_data;
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
      .pw_valid_o(pw_valid), .pw_group_o(pw[`PW_GROUP]), .pw_slot_o(pw[`PW_SLOT]),
      .pw_lane_o(pw[`PW_LANE]), .pw_data_o(pw[`PW_DATA]),
      .nw_valid_o(nw_valid), .nw_group_o(nw_group), .nw_slot_o(nw_slot), .nw_index_o(nw_index),
      .nw_data_o(nw_data),
      .rw_valid_o(rw_valid), .rw_ready_i(rw_ready), .rw_addr_o(rw_addr), .rw_data_o(rw_data),
      .ro_valid_o(ro_valid), .ro_o(ro),
      .mask_read_o(mask_read), .mask_addr_o(mask_addr),
      .mask_data_i(mask_data),
      .done_o(done[16*E_LOAD+:16]), .busy_o(happens[`E_LOAD_BUSY]), .wait_o(happens[`E_LOAD_WAIT]),
      .error_valid_o(load_error), .error_code_o(load_code), .error_info_o(load_info),
      .w2_fetched_o(w2_fetched), .w2_rows_o(w2_rows)
  );

  // ---------------------------------------------------------------- array
  wire [16*ROWS-1:0]  src_addr, src_data;
  wire                move_valid;
  wire [`MV_ALL]      move;
  wire [15:0]         score_addr;
  wire                score_ready, score_read, src_read;
  wire [23:0]         score_data;
  wire [N-1:0]        rd_valid, rd_ready, rd_dvalid;
  wire [BANK_W*N-1:0] rd_bank;
  wire [16*N-1:0]     rd_addr;
  wire [64*N-1:0]     rd_data;
  wire [ROWS-1:0]     dt_valid;
  wire [16*ROWS-1:0]  dt_addr;
  wire [64*ROWS-1:0]  dt_data;
  wire                res_rd, res_busy;
  wire [15:0]         res_raddr, res_waddr;
  wire [16*N-1:0]     res_rdata, res_wdata;
  wire [N-1:0]        res_we;
  wire                rec_valid, rec_ready, rec_eor, rec_last;
  wire [63:0]         rec_data;
  rowvit_array #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .MAX_TOKENS(MAX_TOKENS), .WEIGHT_DEPTH(WEIGHT_DEPTH),
      .PARAM_SLOTS(PARAM_SLOTS), .MASK_DEPTH(MASK_DEPTH), .BANK_W(BANK_W), .ROTARY_TOKENS(ROTARY_TOKENS),
      .USE_DSP(USE_DSP)
  ) u_array (
      .clk_i(clk_i), .clear_i(clear[C_ARRAY+:4+N]),
      .instr_valid_i(q_exec_valid), .instr_ready_o(q_exec_ready), .instr_i(q_exec),
      .done_i(done), .bands_i(bands),
      .live_i(live_exec), .set_live_o(set_live), .set_live_rows_o(set_live_rows),
      .src_read_o(src_read), .src_addr_o(src_addr), .src_data_i(src_data),
      .score_read_i(score_read), .score_addr_i(score_addr), .score_ready_o(score_ready),
      .score_data_o(score_data),
      .rd_valid_o(rd_valid), .rd_ready_i(rd_ready), .rd_bank_o(rd_bank), .rd_addr_o(rd_addr),
      .rd_dvalid_i(rd_dvalid), .rd_data_i(rd_data),
      .tw_valid_o(dt_valid), .tw_addr_o(dt_addr), .tw_data_o(dt_data),
      .res_rd_o(res_rd), .res_raddr_o(res_raddr), .res_rdata_i(res_rdata),
      .res_we_o(res_we), .res_busy_o(res_busy), .res_waddr_o(res_waddr), .res_wdata_o(res_wdata),
      .ww_valid_i(ww_valid), .ww_ready_o(ww_ready), .ww_group_i(ww_group), .ww_line_i(ww_line),
      .ww_data_i(ww_data), .pw_valid_i(pw_valid), .pw_i(pw),
      .ro_valid_i(ro_valid), .ro_i(ro), .move_valid_i(move_valid), .move_i(move),
      .mask_read_i(mask_read), .mask_addr_i(mask_addr), .mask_data_o(mask_data),
      .rec_valid_o(rec_valid), .rec_ready_i(rec_ready), .rec_data_o(rec_data),
      .rec_eor_o(rec_eor), .rec_last_o(rec_last),
      .cycles_i(counters_o[32*CNT_CYCLES+:32]), .fires_i(counters_o[32*CNT_FIRES+:32]),
      .exec_done_o(done[16*E_EXEC+:16]), .drain_done_o(done[16*E_DRAIN+:16]),
      .drain_bands_o(bands[16*E_DRAIN+:16]),
      .exec_busy_o(happens[`E_EXEC_BUSY]), .drain_busy_o(happens[`E_DRAIN_BUSY]),
      .softmax_busy_o(happens[`E_SOFTMAX_BUSY]), .fire_any_o(happens[`E_EXEC_FIRE]),
      .fires_o(fires), .ffn2_nonzeros_o(ffn2_nonzeros), .pv_nonzeros_o(pv_nonzeros),
      .wait_data_o(happens[`E_WAIT_DATA]), .wait_drain_o(happens[`E_WAIT_DRAIN]),
      .wait_steal_o(happens[`E_WAIT_STEAL])
  );

  // ---------------------------------------------------------------- selection
  wire        kept_valid, kept_ready, kept_eor;
  wire [63:0] kept_data;
  rowvit_select #(
      .ROWS(ROWS), .MAX_TOKENS(MAX_TOKENS), .ROTARY(ROTARY_TOKENS != 0)
  ) u_select (
      .clk_i(clk_i), .rst_ni(!clear[C_SELECT]),
      .instr_valid_i(q_select_valid), .instr_ready_o(q_select_ready), .instr_i(q_select),
      .done_i(done), .bands_i(bands),
      .live_i(live_select), .kept_valid_o(kept_set), .kept_o(kept_rows),
      .score_read_o(score_read), .score_addr_o(score_addr), .score_ready_i(score_ready),
      .score_data_i(score_data),
      .src_read_i(src_read), .src_addr_i(src_addr), .src_data_o(src_data),
      .move_valid_o(move_valid), .move_o(move),
      .out_valid_o(kept_valid), .out_ready_i(kept_ready), .out_data_o(kept_data),
      .out_eor_o(kept_eor),
      .done_o(done[16*E_SELECT+:16]), .busy_o(happens[`E_SELECT_BUSY])
  );

  // ---------------------------------------------------------------- LayerNorm
  wire               nrd_valid, nrd_ready;
  wire [15:0]        nrd_addr;
  wire [ROWS-1:0]    nt_valid, nt_ready;
  wire [16*ROWS-1:0] nt_addr;
  wire [64*ROWS-1:0] nt_data;
  wire               dump_valid, dump_ready, dump_eor, dump_last;
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
      .out_eor_o(dump_eor), .out_last_o(dump_last),
      .done_o(done[16*E_NORM+:16]), .bands_o(bands[16*E_NORM+:16]), .busy_o(happens[`E_NORM_BUSY])
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
  wire               recv_ready, starved;
  // Nothing is taken from the stream while the core does not run, or before its RECV: no word is lost.
  assign s_axis_tready = recv_ready && run;
  rowvit_recv #(
      .ROWS(ROWS)
  ) u_recv (
      .clk_i(clk_i), .rst_ni(!clear[C_RECV]),
      .instr_valid_i(q_recv_valid), .instr_ready_o(q_recv_ready), .instr_i(q_recv),
      .done_i(done), .bands_i(bands),
      .s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid && run), .s_axis_tready(recv_ready),
      .s_axis_tlast(s_axis_tlast),
      .tw_valid_o(rt_valid), .tw_ready_i(rt_ready), .tw_addr_o(rt_addr), .tw_data_o(rt_data),
      .done_o(done[16*E_RECV+:16]), .bands_o(bands[16*E_RECV+:16]),
      .word_o(happens[`E_RECV_WORDS]), .starved_o(starved),
      .error_valid_o(recv_error), .error_code_o(recv_code), .error_info_o(recv_info)
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
  rowvit_send #(
      .N(3)
  ) u_send (
      .clk_i(clk_i), .rst_ni(!clear[C_RECV]),
      .in_valid_i({dump_valid, kept_valid, rec_valid}),
      .in_ready_o({dump_ready, kept_ready, rec_ready}),
      .in_data_i({dump_data, kept_data, rec_data}),
      .in_eor_i({dump_eor, kept_eor, rec_eor}),
      .in_last_i({dump_last, 1'b0, rec_last}),
      .m_axis_tdata(m_axis_tdata), .m_axis_tkeep(m_axis_tkeep), .m_axis_tvalid(m_axis_tvalid),
      .m_axis_tready(m_axis_tready), .m_axis_tlast(m_axis_tlast), .sent_o(happens[`E_SEND_WORDS])
  );

  // ---------------------------------------------------------------- counters and watchdog
  assign happens[`E_AXI_BEATS] = reader_beat_i;
  rowvit_monitor #(
      .PORT_BITS(PORT_BITS)
  ) u_monitor (
      .clk_i(clk_i), .rst_ni(!clear[C_CORE]), .clear_i(clear[C_COUNTERS+:2]), .run_i(run),
      .event_i(happens), .fires_i(fires), .ffn2_nonzeros_i(ffn2_nonzeros), .pv_nonzeros_i(pv_nonzeros),
      .w2_fetched_i(w2_fetched), .w2_rows_i(w2_rows),
      .progress_i({done, bands}), .host_i(starved || (m_axis_tvalid && !m_axis_tready)),
      .limit_i(watchdog_i), .error_o(watchdog_error), .counters_o(counters_o)
  );

  wire unused = &{1'b0, reader_busy_i, dt_ready_unused};
endmodule
`default_nettype wire
