// SPDX-License-Identifier: Apache-2.0
// LOAD's data side: waits for the dependencies of each job and deals out its words to the memories.
// V's drain keeps the weight memory busy for long: up to 16 lines wait here meanwhile.
// Throughput: a word of the port per cycle, of other kinds than weights 64 bits, also from load to load.
// Latency: 1 cycle from a word to its memory.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_load_write #(
    // Token rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group: 16, 32 or 64.
    parameter LANES = 64,
    // Bits of a word of the memory port: 64 or 128.
    parameter PORT_BITS = 64
) (
    input  wire                        clk_i,
    input  wire                        rst_ni,

    // The job at the head of the queue; it stays until it is taken, after which a cycle has none.
    input  wire                        job_valid_i,
    output wire                        job_ready_o,
    input  wire                        job_empty_i,
    input  wire                        job_final_i,
    input  wire [2:0]                  job_kind_i,
    input  wire [$clog2(GROUPS+1)-1:0] job_groups_i,
    input  wire [15:0]                 job_dst_i,
    input  wire [15:0]                 job_rows_i,
    input  wire [5:0]                  job_chain_i,
    input  wire [95:0]                 job_deps_i,
    input  wire [95:0]                 done_i,
    input  wire [95:0]                 bands_i,
    output wire [15:0]                 done_o,

    // Words of the reader.
    input  wire                        rsp_valid_i,
    output wire                        rsp_ready_o,
    input  wire [PORT_BITS-1:0]        rsp_data_i,

    // Memories, as in rowvit_load_engine.
    output wire                        ww_valid_o,
    input  wire                        ww_ready_i,
    output wire [7:0]                  ww_group_o,
    output wire [15:0]                 ww_line_o,
    output wire [LANES*8-1:0]          ww_data_o,
    output wire                        pw_valid_o,
    output wire [7:0]                  pw_group_o,
    output wire [7:0]                  pw_slot_o,
    output wire [7:0]                  pw_lane_o,
    output wire [47:0]                 pw_data_o,
    output wire                        nw_valid_o,
    output wire [7:0]                  nw_group_o,
    output wire [7:0]                  nw_slot_o,
    output wire [15:0]                 nw_index_o,
    output wire [47:0]                 nw_data_o,
    output wire                        rw_valid_o,
    input  wire                        rw_ready_i,
    output wire [15:0]                 rw_addr_o,
    output wire [ROWS*GROUPS*16-1:0]   rw_data_o,
    output wire                        ro_valid_o,
    output wire [`RO_ALL]              ro_o,

    // A job is under way, or words wait; no job is, and the head waits for dependencies.
    output wire                        busy_o,
    output wire                        idle_o,
    output wire                        blocked_o
);
  `include "rowvit_defs.vh"

  localparam GW = $clog2(GROUPS + 1);
  localparam LW = $clog2(LANES);
  localparam PARTS = PORT_BITS / 64;
  // Words per weight line, of the port's width; 64-bit words per residual address.
  localparam LINE_WORDS = LANES * 8 / PORT_BITS;
  localparam RES_WORDS = (ROWS * GROUPS + 3) / 4;
  // Residuals of an address fill whole words, or those of two addresses do (one bank pair: padded).
  localparam PAIRED = ROWS * GROUPS % 4 == 2 && ROWS * GROUPS > 2;
  localparam [15:0] LANES_16 = LANES[15:0];

  // The dependencies of the job at the head are checked while the current one is under way.
  wire head_ok;
  reg head_ok_q, blocked_q;
  rowvit_dep_check u_job_dep (
      .chain_i(job_chain_i),
      .dep_i(job_deps_i),
      .done_i(done_i),
      .bands_i(bands_i),
      .band_i(16'd0),
      .ok_o(head_ok)
  );

  always @(posedge clk_i) begin
    head_ok_q <= job_valid_i && head_ok && !job_ready_o;
    blocked_q <= job_valid_i && !head_ok;
    if (!rst_ni) {head_ok_q, blocked_q} <= 2'b00;
  end

  // Current job, and where the next word goes.
  reg cur_valid_q, cur_final_q, cur_empty_q;
  reg [2:0] cur_kind_q;
  reg [GW-1:0] cur_groups_q;
  reg [15:0] cur_dst_q, cur_rows_q;
  reg [LW-1:0] word_q;
  reg [GW-1:0] group_q;
  reg [15:0] row_q, index_q;

  wire lines_ready, line_valid, line_final;
  reg word_valid_q, word_final_q;
  wire is_weight = cur_kind_q == LOADKIND_WEIGHT;
  wire is_norm = cur_kind_q == LOADKIND_NORM;
  wire is_residual = cur_kind_q == LOADKIND_RESIDUAL;
  wire is_rotary = cur_kind_q == LOADKIND_ROTATION || cur_kind_q == LOADKIND_PLACE;

  // Words per step of group_q: a line, a lane set, or a residual address.
  localparam [31:0] LAST_OF_LINE = LINE_WORDS - 1, LAST_OF_RES = RES_WORDS - 1,
                    LAST_LANE = LANES - 1, LAST_GROUP = GROUPS - 1;
  // The second address of a pair starts in the last word of the first.
  wire second = PAIRED && row_q[0];
  wire [LW-1:0] last_word = is_weight ? LAST_OF_LINE[LW-1:0]
                          : is_residual ? LAST_OF_RES[LW-1:0] - {{(LW-1){1'b0}}, second}
                          : LAST_LANE[LW-1:0];
  wire [GW-1:0] last_group = is_norm ? LAST_GROUP[GW-1:0]
                           : is_residual ? {GW{1'b0}} : cur_groups_q - {{(GW-1){1'b0}}, 1'b1};
  wire word_end = word_q == last_word;
  wire group_end = word_end && group_q == last_group;
  // These count words in row_q, those of a norm may end inside a group; a parameter load is one row.
  wire row_step = is_norm || is_rotary || group_end;
  reg last_row_q;
  wire job_end = row_step && (cur_kind_q == LOADKIND_PARAM || last_row_q);

  // Other kinds than weights take 64 bits at a time, the lower ones first.
  reg         half_q;
  wire [63:0] half = rsp_data_i[64*(half_q && PARTS > 1)+:64];
  wire        used = is_weight || PARTS == 1 || half_q;  // all of the port's word

  // They wait until all lines are written, so that operations complete in order.
  wire held = rw_valid_o && !rw_ready_i;
  wire room = !held && (is_weight ? lines_ready : !line_valid);
  wire take = cur_valid_q && !cur_empty_q && room && rsp_valid_i;
  // A job without words ends when everything before it is written.
  wire close = cur_valid_q && cur_empty_q && !line_valid && !word_valid_q;
  wire finish = close || (take && job_end);

  assign rsp_ready_o = cur_valid_q && !cur_empty_q && room && used;
  assign job_ready_o = head_ok_q && (!cur_valid_q || finish);

  always @(posedge clk_i) begin
    cur_valid_q <= job_ready_o || (cur_valid_q && !finish);
    if (!rst_ni) cur_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (job_ready_o) begin
      cur_final_q <= job_final_i;
      cur_empty_q <= job_empty_i;
      cur_kind_q <= job_kind_i;
      cur_groups_q <= job_groups_i;
      cur_dst_q <= job_dst_i;
      cur_rows_q <= job_rows_i;
      word_q <= 0;
      group_q <= 0;
      row_q <= 0;
      last_row_q <= job_rows_i == 16'd1;
      index_q <= 0;
      half_q <= 1'b0;
    end else if (take) begin
      half_q <= !half_q;
      word_q <= word_end ? {LW{1'b0}} : word_q + 1'b1;
      if (word_end) group_q <= group_end ? {GW{1'b0}} : group_q + 1'b1;
      if (row_step) begin
        row_q <= row_q + 1'b1;
        last_row_q <= row_q == cur_rows_q - 16'd2;
      end
      // Norm: first index of the lane tile.
      if (group_end) index_q <= index_q + LANES_16;
    end
  end

  // The residuals of an address assemble by shifting; the first word ends lowest.
  reg [64*RES_WORDS-1:0] part_q;
  wire [64*RES_WORDS+63:0] shifted = {half, part_q};

  always @(posedge clk_i) begin
    if (take) part_q <= shifted[64*RES_WORDS+63:64];
  end

  // The drains of K and V take the weight memory, K's in every cycle; meanwhile lines gather here. A line
  // assembles in its place, a column of the queue per word.
  wire [15:0] target = cur_dst_q + row_q;
  wire [GW-1:0] line_group;
  reg [3:0] line_place_q, line_read_q;
  wire line_push = take && is_weight && word_end;
  wire line_pop = line_valid && ww_ready_i;
  rowvit_fifo #(.WIDTH(17 + GW), .DEPTH(16)) u_lines (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(line_push),
      .in_ready_o(lines_ready),
      .in_data_i({job_end && cur_final_q, group_q, target}),
      .out_valid_o(line_valid),
      .out_ready_i(ww_ready_i),
      .out_data_o({line_final, line_group, ww_line_o}),
      .count_o()
  );

  always @(posedge clk_i) begin
    line_place_q <= line_place_q + {3'd0, line_push};
    line_read_q <= line_read_q + {3'd0, line_pop};
    if (!rst_ni) begin
      line_place_q <= 4'd0;
      line_read_q <= 4'd0;
    end
  end

  genvar c;
  generate
    for (c = 0; c < LINE_WORDS; c = c + 1) begin : g_column
      localparam [31:0] COLUMN = c;
      (* ram_style = "distributed" *) reg [PORT_BITS-1:0] mem_q [0:15];
      always @(posedge clk_i) begin
        if (take && is_weight && word_q == COLUMN[LW-1:0]) mem_q[line_place_q] <= rsp_data_i;
      end
      assign ww_data_o[PORT_BITS*c+:PORT_BITS] = mem_q[line_read_q];
    end
  endgenerate

  // Everything else is written in the next cycle.
  reg [2:0] word_kind_q;
  reg word_second_q;
  reg [GW-1:0] word_group_q;
  reg [LW-1:0] word_lane_q;
  reg [7:0] word_slot_q;
  reg [15:0] word_row_q, word_index_q;
  reg [47:0] word_data_q;

  always @(posedge clk_i) begin
    word_valid_q <= held || (take && !is_weight && (!is_residual || word_end));
    if (!rst_ni) word_valid_q <= 1'b0;
  end

  always @(posedge clk_i) if (!held) begin
    word_kind_q <= cur_kind_q;
    word_second_q <= second;
    word_group_q <= group_q;
    word_lane_q <= word_q;
    word_slot_q <= cur_dst_q[7:0];
    word_row_q <= target;
    word_index_q <= index_q + {{(16-LW){1'b0}}, word_q};
    word_data_q <= half[47:0];
    word_final_q <= take && job_end && cur_final_q;
  end

  reg [15:0] done_q;
  always @(posedge clk_i) begin
    if ((line_valid && ww_ready_i && line_final) || (word_valid_q && word_final_q && !held)
             || (close && cur_final_q)) done_q <= done_q + 1'b1;
    if (!rst_ni) done_q <= 0;
  end

  assign done_o = done_q;
  assign ww_valid_o = line_valid;
  assign ww_group_o = {{(8-GW){1'b0}}, line_group};
  assign pw_valid_o = word_valid_q && word_kind_q == LOADKIND_PARAM;
  assign pw_group_o = {{(8-GW){1'b0}}, word_group_q};
  assign pw_slot_o = word_slot_q;
  assign pw_lane_o = {{(8-LW){1'b0}}, word_lane_q};
  assign pw_data_o = word_data_q;
  assign nw_valid_o = word_valid_q && word_kind_q == LOADKIND_NORM;
  assign nw_group_o = {{(8-GW){1'b0}}, word_group_q};
  assign nw_slot_o = word_slot_q;
  assign nw_index_o = word_index_q;
  assign nw_data_o = word_data_q;
  assign rw_valid_o = word_valid_q && word_kind_q == LOADKIND_RESIDUAL;
  assign rw_addr_o = word_row_q;
  assign ro_valid_o = word_valid_q && (word_kind_q == LOADKIND_ROTATION || word_kind_q == LOADKIND_PLACE);
  assign ro_o[`RO_PLACE] = word_kind_q[0];
  assign ro_o[`RO_ADDRESS] = word_row_q;
  assign ro_o[`RO_DATA] = word_data_q[31:0];
  // The words of this address are the last that came in.
  assign rw_data_o = word_second_q ? part_q[64*RES_WORDS-1-:ROWS*GROUPS*16] : part_q[ROWS*GROUPS*16-1:0];

  assign busy_o = cur_valid_q || line_valid || word_valid_q;
  assign idle_o = !cur_valid_q;
  assign blocked_o = blocked_q;
endmodule

`default_nettype wire
