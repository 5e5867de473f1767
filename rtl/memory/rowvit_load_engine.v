// SPDX-License-Identifier: Apache-2.0
// LOAD: from DDR to the weight, parameter, norm parameter and residual memories.
// The request side turns instructions into reads and jobs, up to 32 jobs ahead, without waiting for
// dependencies (but a gather's mask is final only when they are met). The data side waits for the
// dependencies of each job and deals out its words. A gather requests a row every other cycle and
// spends about 8 more cycles per mask word.
// Throughput: weights one word of the port per cycle, other kinds 64 bits, also from load to load.
// Latency: 4 cycles plus the memory's.
`default_nettype none

module rowvit_load_engine #(
    // Token rows per band, lane groups, lanes per group (16, 32 or 64).
    parameter ROWS = 2,
    parameter GROUPS = 3,
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

    // Counters: a load is in progress; it waits for dependencies; W2 rows.
    output wire                      busy_o,
    output wire                      wait_o,
    output reg  [15:0]               w2_fetched_o,
    output reg  [15:0]               w2_rows_o,
    // One-cycle pulse; info is the instruction index. The engine stops until it is reset.
    output wire                      error_valid_o,
    output wire [7:0]                error_code_o,
    output wire [23:0]               error_info_o
);
  `include "rowvit_defs.vh"

  localparam GW = $clog2(GROUPS + 1);
  localparam DEP_W = 17 * N_ENGINE;
  localparam LW = $clog2(LANES);
  localparam PARTS = PORT_BITS / 64;
  // Words per weight line, of the port's width; 64-bit words per residual address.
  localparam LINE_WORDS = LANES * 8 / PORT_BITS;
  localparam RES_WORDS = (ROWS * GROUPS + 3) / 4;
  // Residuals of an address fill whole words, or those of two addresses do (one bank pair: padded).
  localparam PAIRED = ROWS * GROUPS % 4 == 2 && ROWS * GROUPS > 2;
  localparam [15:0] LANES_16 = LANES[15:0];

  generate
    if (LANES < 16 || LANES > 128 || (1 << LW) != LANES) begin : g_bad_lanes
      illegal_parameter_load_engine_lanes u_bad();
    end
  endgenerate

  // ---------------------------------------------------------------- request side
  localparam S_IDLE = 4'd0, S_SIZE = 4'd1, S_CHECK = 4'd2, S_GATHER = 4'd3, S_MASK = 4'd4,
             S_READ = 4'd5, S_LATCH = 4'd6, S_HAD = 4'd7, S_SCAN = 4'd8, S_STOP = 4'd9;

  wire [1:0] kind = instr_i[F_LOAD_KIND+:2];
  wire [31:0] address = instr_i[F_LOAD_ADDRESS+:32];
  wire [15:0] dst = instr_i[F_LOAD_DST+:16];
  wire [15:0] rows = instr_i[F_LOAD_ROWS+:16];
  wire [GW-1:0] groups = instr_i[F_LOAD_GROUPS+:GW];
  wire [15:0] mask_base = instr_i[F_LOAD_MASK_BASE+:16];
  wire [15:0] band0 = instr_i[F_LOAD_BAND0+:16];
  wire [15:0] mask_had = instr_i[F_LOAD_MASK_HAD+:16];
  wire rest_only = instr_i[F_FLAGS + FLAG_REST];
  wire nothing = instr_i[F_FLAGS + FLAG_VOID];
  wire gather = instr_i[F_FLAGS + FLAG_GATHER] && kind == LOADKIND_WEIGHT && !nothing;
  wire [DEP_W-1:0] deps = {instr_i[F_CHAIN+:N_ENGINE], instr_i[F_DEPS+:16*N_ENGINE]};

  reg [3:0] state_q;
  reg [31:0] bytes_q;
  reg [32:0] end_q;

  // One job, and usually one request, waits here for the reader and for room in the job queue.
  reg next_valid_q, next_read_q, next_final_q;
  reg [31:0] next_addr_q, next_bytes_q;
  reg [15:0] next_dst_q, next_rows_q;
  wire jobs_ready;
  wire next_taken = next_valid_q && jobs_ready && (req_ready_i || !next_read_q);
  wire next_free = !next_valid_q || next_taken;

  // Dependencies, once met, stay so: they are registered. Before S_GATHER the head of the queue stands
  // for three cycles.
  wire gather_ok;
  reg gather_ok_q;
  always @(posedge clk_i) gather_ok_q <= gather_ok;
  rowvit_dep_check u_gather_dep (
      .chain_i(deps[DEP_W-1-:N_ENGINE]),
      .dep_i(deps[0+:16*N_ENGINE]),
      .done_i(done_i),
      .bands_i(bands_i),
      .band_i(16'd0),
      .ok_o(gather_ok)
  );

  // Gather: mask words, and the bits of the current one that are still to be fetched.
  reg [LANES-1:0] bits_q, mask_q;
  always @(posedge clk_i) mask_q <= mask_data_i;
  reg [15:0] mask_addr_q, had_addr_q, left_q, line_q;
  reg [15:0] mask_read_q;  // the address that is read: of S_MASK's mask, then of S_READ's
  reg [31:0] word_addr_q;
  wire [LANES-1:0] lowest = bits_q & (~bits_q + 1'b1);
  reg final_word;  // registered: left_q stands while a word is read and searched
  always @(posedge clk_i) final_word <= left_q <= LANES_16;
  wire [LANES-1:0] tail = final_word ? ~({LANES{1'b1}} << left_q) : {LANES{1'b1}};
  wire [LANES-1:0] rest = bits_q & ~lowest;

  // A found row goes through two registers: its bit, and its index, where its address is multiplied out.
  reg lowest_valid_q, found_q;
  reg [LANES-1:0] lowest_q;
  wire [LW-1:0] lowest_index;
  reg [LW-1:0] found_index_q;
  wire found_free = !found_q || next_free;
  wire lowest_free = !lowest_valid_q;  // a row every other cycle, but a short path
  wire find = state_q == S_SCAN && bits_q != 0 && lowest_free;
  reg scanned;  // known a cycle later
  always @(posedge clk_i) begin
    scanned <= state_q == S_SCAN && bits_q == 0 && !lowest_valid_q && !found_q;
  end
  genvar k, b;
  generate
    for (k = 0; k < LW; k = k + 1) begin : g_index
      wire [LANES-1:0] those;
      for (b = 0; b < LANES; b = b + 1) begin : g_bit
        assign those[b] = ((b >> k) & 1) == 1 && lowest_q[b];
      end
      assign lowest_index[k] = |those;
    end
  endgenerate
  // groups * index: the first two bits of groups with the index, the others after it.
  reg [LW+GW-1:0] lowest_lines, found_lines, found_lines_q;

  wire range_error = state_q == S_CHECK && end_q > {1'b0, length_i};
  wire dead = {16'b0, band0} * ROWS >= {16'b0, live_i};
  // The op's last job: the whole load, or what closes a gather.
  wire plain_issue = state_q == S_CHECK && !range_error && !gather && next_free;
  wire close_issue = state_q == S_SCAN && scanned && final_word && next_free;
  wire dead_issue = state_q == S_GATHER && gather_ok_q && dead && next_free;
  wire issue_final = plain_issue || close_issue || dead_issue;

  // The instruction is let go a cycle after its last job.
  reg pop_q;
  always @(posedge clk_i) begin
    pop_q <= issue_final;
    if (!rst_ni) pop_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    case (state_q)
      S_IDLE: if (instr_valid_i && !pop_q) state_q <= S_SIZE;
      S_SIZE: state_q <= S_CHECK;
      S_CHECK: if (range_error) state_q <= S_STOP;
               else if (gather) state_q <= S_GATHER;
               else if (next_free) state_q <= S_IDLE;
      S_GATHER: if (gather_ok_q && !dead) state_q <= S_MASK;
                else if (dead_issue) state_q <= S_IDLE;
      S_MASK: state_q <= S_READ;
      S_READ: state_q <= S_LATCH;
      S_LATCH: state_q <= rest_only ? S_HAD : S_SCAN;
      S_HAD: state_q <= S_SCAN;
      S_SCAN: if (close_issue) state_q <= S_IDLE;
              else if (scanned && !final_word) state_q <= S_MASK;
      default: ;
    endcase
    if (!rst_ni) state_q <= S_IDLE;
  end

  assign instr_ready_o = pop_q;

  // Size of the load. Products are written as additions: they would take DSP slices from the array.
  reg [15+GW:0] lines;
  reg [31:0] res_words;
  localparam RES_FACTOR = PAIRED ? ROWS * GROUPS / 2 : RES_WORDS;
  wire [15:0] res_rows = PAIRED ? {1'b0, rows[15:1]} : rows;
  integer g;
  always @* begin
    lines = 0;
    lowest_lines = 0;
    found_lines = found_lines_q;
    for (g = 0; g < GW; g = g + 1) begin
      if (groups[g]) lines = lines + ({{GW{1'b0}}, rows} << g);
      if (groups[g] && g < 2) lowest_lines = lowest_lines + ({{GW{1'b0}}, lowest_index} << g);
      if (groups[g] && g >= 2) found_lines = found_lines + ({{GW{1'b0}}, found_index_q} << g);
    end
    res_words = 0;
    for (g = 0; g < 8; g = g + 1)
      if (((RES_FACTOR >> g) & 1) == 1) res_words = res_words + ({16'b0, res_rows} << g);
  end

  always @(posedge clk_i) begin
    case (kind)
      LOADKIND_WEIGHT: bytes_q <= {{(16-GW){1'b0}}, lines} << LW;
      LOADKIND_PARAM: bytes_q <= {{(32-GW){1'b0}}, groups} << (LW + 3);
      LOADKIND_NORM: bytes_q <= {13'b0, rows, 3'b0};
      default: bytes_q <= {res_words[28:0], 3'b0};
    endcase
    if (nothing) bytes_q <= 32'b0;
  end

  always @(posedge clk_i) begin
    end_q <= {1'b0, address} + {1'b0, bytes_q};
  end

  always @(posedge clk_i) begin
    case (state_q)
      S_GATHER: begin
        mask_addr_q <= mask_base;
        mask_read_q <= mask_base;
        had_addr_q <= mask_had;
        left_q <= rows;
        line_q <= dst;
        word_addr_q <= address;
      end
      S_MASK: mask_read_q <= had_addr_q;
      S_LATCH: bits_q <= mask_q & tail;
      S_HAD: bits_q <= bits_q & ~mask_q;
      S_SCAN: begin
        if (find) begin
          bits_q <= rest;
        end else if (scanned && !final_word) begin
          mask_addr_q <= mask_addr_q + 1'b1;
          mask_read_q <= mask_addr_q + 1'b1;
          had_addr_q <= had_addr_q + 1'b1;
          left_q <= left_q - LANES_16;
          line_q <= line_q + LANES_16;
          word_addr_q <= word_addr_q + ({{(32-GW){1'b0}}, groups} << (2 * LW));
        end
      end
      default: ;
    endcase
  end

  always @(posedge clk_i) begin
    lowest_valid_q <= lowest_valid_q ? !found_free : find;
    found_q <= lowest_valid_q || !found_free;
    if (!rst_ni) begin
      lowest_valid_q <= 1'b0;
      found_q <= 1'b0;
    end
  end

  always @(posedge clk_i) begin
    if (lowest_free) lowest_q <= lowest;
    if (found_free) found_index_q <= lowest_index;
    if (found_free) found_lines_q <= lowest_lines;
  end

  always @(posedge clk_i) begin
    next_valid_q <= issue_final || found_q || !next_free;
    if (!rst_ni) next_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (next_free) begin
      if (found_q) begin
        next_addr_q <= word_addr_q + ({{(32-GW-LW){1'b0}}, found_lines} << LW);
        next_bytes_q <= {{(32-GW){1'b0}}, groups} << LW;
        next_dst_q <= line_q + {{(16-LW){1'b0}}, found_index_q};
      end else begin
        next_addr_q <= address;
        next_bytes_q <= bytes_q;
        next_dst_q <= dst;
      end
      next_rows_q <= found_q ? 16'd1 : gather ? 16'd0 : rows;
      next_read_q <= found_q || (!gather && bytes_q != 0);
      next_final_q <= !found_q;
    end
  end

  assign req_valid_o = next_valid_q && next_read_q && jobs_ready;
  assign req_addr_o = base_i + {32'b0, next_addr_q};
  assign req_bytes_o = next_bytes_q;
  assign mask_addr_o = mask_read_q;
  always @(posedge clk_i) begin
    w2_fetched_o <= {15'b0, find};
    w2_rows_o <= close_issue && !rest_only ? rows : 16'd0;
    if (!rst_ni) begin
      w2_fetched_o <= 16'd0;
      w2_rows_o <= 16'd0;
    end
  end
  assign error_valid_o = range_error;
  assign error_code_o = ERROR_ADDRESS_RANGE;
  assign error_info_o = {8'b0, instr_i[F_INDEX+:16]};

  // ---------------------------------------------------------------- job queue
  // The instruction's other fields travel with the job; they are captured with it.
  reg [1:0] next_kind_q;
  reg [GW-1:0] next_groups_q;
  reg [DEP_W-1:0] next_deps_q;
  always @(posedge clk_i) begin
    if (next_free) begin
      next_kind_q <= kind;
      next_groups_q <= groups;
      next_deps_q <= deps;
    end
  end

  localparam JOB_W = 35 + GW + DEP_W;
  wire job_valid, job_ready;
  wire job_final, job_empty;
  wire [1:0] job_kind;
  wire [GW-1:0] job_groups;
  wire [15:0] job_dst, job_rows;
  wire [DEP_W-1:0] job_deps;
  wire next_empty = !next_read_q;
  wire front_valid;
  wire [JOB_W:0] front;
  // The head is in registers: its dependencies are a long path. They take a cycle between two jobs, so
  // that nothing of the queue depends on when a job is taken.
  reg job_valid_q;
  reg [JOB_W:0] job_q;
  wire job_free = !job_valid_q;

  rowvit_fifo #(.WIDTH(JOB_W + 1), .DEPTH(32)) u_jobs (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(next_taken),
      .in_ready_o(jobs_ready),
      .in_data_i({next_empty, next_final_q, next_kind_q, next_groups_q, next_dst_q, next_rows_q,
                  next_deps_q}),
      .out_valid_o(front_valid),
      .out_ready_i(job_free),
      .out_data_o(front),
      .count_o()
  );

  always @(posedge clk_i) begin
    job_valid_q <= job_valid_q ? !job_ready : front_valid;
    if (!rst_ni) job_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (job_free) job_q <= front;
  end

  assign job_valid = job_valid_q;
  assign {job_empty, job_final, job_kind, job_groups, job_dst, job_rows, job_deps} = job_q;

  // ---------------------------------------------------------------- data side
  // The dependencies of the job at the head are checked while the current one is under way.
  wire head_ok;
  reg head_ok_q, blocked_q;
  rowvit_dep_check u_job_dep (
      .chain_i(job_deps[DEP_W-1-:N_ENGINE]),
      .dep_i(job_deps[0+:16*N_ENGINE]),
      .done_i(done_i),
      .bands_i(bands_i),
      .band_i(16'd0),
      .ok_o(head_ok)
  );

  always @(posedge clk_i) begin
    head_ok_q <= job_valid && head_ok && !job_ready;
    blocked_q <= job_valid && !head_ok;
    if (!rst_ni) {head_ok_q, blocked_q} <= 2'b00;
  end

  // Current job, and where the next word goes.
  reg cur_valid_q, cur_final_q, cur_empty_q;
  reg [1:0] cur_kind_q;
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
  // A norm load counts words in row_q, which may end inside a group; a parameter load is one row.
  wire row_step = is_norm || group_end;
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
  assign job_ready = head_ok_q && (!cur_valid_q || finish);

  always @(posedge clk_i) begin
    cur_valid_q <= job_ready || (cur_valid_q && !finish);
    if (!rst_ni) cur_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (job_ready) begin
      cur_final_q <= job_final;
      cur_empty_q <= job_empty;
      cur_kind_q <= job_kind;
      cur_groups_q <= job_groups;
      cur_dst_q <= job_dst;
      cur_rows_q <= job_rows;
      word_q <= 0;
      group_q <= 0;
      row_q <= 0;
      last_row_q <= job_rows == 16'd1;
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
  reg [1:0] word_kind_q;
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
  // The words of this address are the last that came in.
  assign rw_data_o = word_second_q ? part_q[64*RES_WORDS-1-:ROWS*GROUPS*16] : part_q[ROWS*GROUPS*16-1:0];

  assign busy_o = state_q != S_IDLE || next_valid_q || front_valid || job_valid || cur_valid_q || line_valid
      || word_valid_q;
  assign wait_o = !cur_valid_q
      && (blocked_q || (!job_valid && state_q == S_GATHER && !gather_ok_q));
endmodule

`default_nettype wire
