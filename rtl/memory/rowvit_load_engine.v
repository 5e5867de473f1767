// SPDX-License-Identifier: Apache-2.0
// LOAD: from DDR to the weight, parameter, norm parameter and residual memories. The request side turns
// instructions into reads and jobs, up to 32 jobs ahead; the data side deals out the words of one job
// after the other. This is the queue of jobs between the two.
// Throughput: a word of the port per cycle, of other kinds than weights 64 bits, also from load to load.
// Latency: 4 cycles plus the memory's.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_load_engine #(
    // Token rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group: 16, 32 or 64.
    parameter LANES = 64,
    // Bits of a word of the memory port: 64 or 128.
    parameter PORT_BITS = 64
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,

    input  wire                      instr_valid_i,
    output wire                      instr_ready_o,
    input  wire [511:0]              instr_i,
    input  wire [95:0]               done_i,
    input  wire [95:0]               bands_i,
    output wire [15:0]               done_o,
    input  wire [63:0]               base_i,
    input  wire [31:0]               length_i,
    input  wire [15:0]               live_i,

    // Reader client.
    output wire                      req_valid_o,
    input  wire                      req_ready_i,
    output wire [63:0]               req_addr_o,
    output wire [31:0]               req_bytes_o,
    input  wire                      rsp_valid_i,
    output wire                      rsp_ready_o,
    input  wire [PORT_BITS-1:0]      rsp_data_i,

    // Mask memory; data one cycle after the address.
    output wire                      mask_read_o,
    output wire [15:0]               mask_addr_o,
    input  wire [LANES-1:0]          mask_data_i,

    // Weight memory.
    output wire                      ww_valid_o,
    input  wire                      ww_ready_i,
    output wire [7:0]                ww_group_o,
    output wire [15:0]               ww_line_o,
    output wire [LANES*8-1:0]        ww_data_o,
    // Parameters, {mult[47:32], bias[31:0]}; always accepted.
    output wire                      pw_valid_o,
    output wire [7:0]                pw_group_o,
    output wire [7:0]                pw_slot_o,
    output wire [7:0]                pw_lane_o,
    output wire [47:0]               pw_data_o,
    // Norm parameters, {g[47:32], b[31:0]}, index = lane tile * LANES + lane; always accepted.
    output wire                      nw_valid_o,
    output wire [7:0]                nw_group_o,
    output wire [7:0]                nw_slot_o,
    output wire [15:0]               nw_index_o,
    output wire [47:0]               nw_data_o,
    // Residuals of all banks at one address.
    output wire                      rw_valid_o,
    input  wire                      rw_ready_i,
    output wire [15:0]               rw_addr_o,
    output wire [ROWS*GROUPS*16-1:0] rw_data_o,
    // Table of rotations and places; always accepted.
    output wire                      ro_valid_o,
    output wire [`RO_ALL]            ro_o,

    // Counters: a load is in progress; it waits for dependencies; W2 rows.
    output wire                      busy_o,
    output wire                      wait_o,
    output wire [15:0]               w2_fetched_o,
    output wire [15:0]               w2_rows_o,
    // One-cycle pulse; info is the instruction index. The engine stops until it is reset.
    output wire                      error_valid_o,
    output wire [7:0]                error_code_o,
    output wire [23:0]               error_info_o
);
  localparam GW = $clog2(GROUPS + 1);
  localparam LW = $clog2(LANES);
  localparam JOB_W = 139 + GW;  // all of a job

  generate
    if (LANES < 16 || LANES > 64 || (1 << LW) != LANES) begin : g_bad_lanes
      illegal_parameter_load_engine_lanes_must_be_16_32_or_64 u_bad();
    end
  endgenerate

  wire asking, gather_waits;
  wire new_valid, jobs_ready;
  wire new_empty, new_final;
  wire [2:0] new_kind;
  wire [GW-1:0] new_groups;
  wire [15:0] new_dst, new_rows;
  wire [5:0] new_chain;
  wire [95:0] new_deps;
  rowvit_load_request #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES)
  ) u_request (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .instr_valid_i(instr_valid_i), .instr_ready_o(instr_ready_o), .instr_i(instr_i),
      .done_i(done_i), .bands_i(bands_i), .base_i(base_i), .length_i(length_i), .live_i(live_i),
      .req_valid_o(req_valid_o), .req_ready_i(req_ready_i), .req_addr_o(req_addr_o),
      .req_bytes_o(req_bytes_o), .mask_read_o(mask_read_o), .mask_addr_o(mask_addr_o),
      .mask_data_i(mask_data_i),
      .job_valid_o(new_valid), .job_ready_i(jobs_ready), .job_empty_o(new_empty),
      .job_final_o(new_final), .job_kind_o(new_kind), .job_groups_o(new_groups), .job_dst_o(new_dst),
      .job_rows_o(new_rows), .job_chain_o(new_chain), .job_deps_o(new_deps),
      .busy_o(asking), .wait_o(gather_waits), .w2_fetched_o(w2_fetched_o), .w2_rows_o(w2_rows_o),
      .error_valid_o(error_valid_o), .error_code_o(error_code_o), .error_info_o(error_info_o)
  );

  // The head is in registers: its dependencies are a long path. They take a cycle between two jobs, so
  // that nothing of the queue depends on when a job is taken.
  wire front_valid, job_ready;
  wire [JOB_W-1:0] front;
  reg job_valid_q;
  reg [JOB_W-1:0] job_q;
  wire job_free = !job_valid_q;
  rowvit_fifo #(.WIDTH(JOB_W), .DEPTH(32)) u_jobs (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(new_valid), .in_ready_o(jobs_ready),
      .in_data_i({new_empty, new_final, new_kind, new_groups, new_dst, new_rows, new_chain, new_deps}),
      .out_valid_o(front_valid), .out_ready_i(job_free), .out_data_o(front), .count_o()
  );

  always @(posedge clk_i) begin
    job_valid_q <= job_valid_q ? !job_ready : front_valid;
    if (!rst_ni) job_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (job_free) job_q <= front;
  end

  wire job_empty, job_final;
  wire [2:0] job_kind;
  wire [GW-1:0] job_groups;
  wire [15:0] job_dst, job_rows;
  wire [5:0] job_chain;
  wire [95:0] job_deps;
  assign {job_empty, job_final, job_kind, job_groups, job_dst, job_rows, job_chain, job_deps} = job_q;

  wire writing, idle, blocked;
  rowvit_load_write #(
      .ROWS(ROWS), .GROUPS(GROUPS), .LANES(LANES), .PORT_BITS(PORT_BITS)
  ) u_write (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .job_valid_i(job_valid_q), .job_ready_o(job_ready), .job_empty_i(job_empty),
      .job_final_i(job_final), .job_kind_i(job_kind), .job_groups_i(job_groups), .job_dst_i(job_dst),
      .job_rows_i(job_rows), .job_chain_i(job_chain), .job_deps_i(job_deps),
      .done_i(done_i), .bands_i(bands_i), .done_o(done_o),
      .rsp_valid_i(rsp_valid_i), .rsp_ready_o(rsp_ready_o), .rsp_data_i(rsp_data_i),
      .ww_valid_o(ww_valid_o), .ww_ready_i(ww_ready_i), .ww_group_o(ww_group_o), .ww_line_o(ww_line_o),
      .ww_data_o(ww_data_o),
      .pw_valid_o(pw_valid_o), .pw_group_o(pw_group_o), .pw_slot_o(pw_slot_o), .pw_lane_o(pw_lane_o),
      .pw_data_o(pw_data_o),
      .nw_valid_o(nw_valid_o), .nw_group_o(nw_group_o), .nw_slot_o(nw_slot_o), .nw_index_o(nw_index_o),
      .nw_data_o(nw_data_o),
      .rw_valid_o(rw_valid_o), .rw_ready_i(rw_ready_i), .rw_addr_o(rw_addr_o), .rw_data_o(rw_data_o),
      .ro_valid_o(ro_valid_o), .ro_o(ro_o),
      .busy_o(writing), .idle_o(idle), .blocked_o(blocked)
  );

  assign busy_o = asking || front_valid || job_valid_q || writing;
  assign wait_o = idle && (blocked || (!job_valid_q && gather_waits));
endmodule

`default_nettype wire
