// SPDX-License-Identifier: Apache-2.0
// LOAD's request side: turns instructions into reads and jobs, without waiting for dependencies (but a
// gather's mask is final only when they are met). What waits for them is the job (rowvit_load_write.v).
// Throughput: a load in 4 cycles; a gather requests a row every other cycle and spends about 8 more
// cycles per mask word. Latency: 3 cycles to the request.
`default_nettype none

module rowvit_load_request #(
    // Token rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group: 16, 32 or 64.
    parameter LANES = 64
) (
    input  wire                        clk_i,
    input  wire                        rst_ni,

    input  wire                        instr_valid_i,
    output wire                        instr_ready_o,
    input  wire [511:0]                instr_i,
    input  wire [95:0]                 done_i,
    input  wire [95:0]                 bands_i,
    input  wire [63:0]                 base_i,
    input  wire [31:0]                 length_i,
    input  wire [15:0]                 live_i,

    // Reader client.
    output wire                        req_valid_o,
    input  wire                        req_ready_i,
    output wire [63:0]                 req_addr_o,
    output wire [31:0]                 req_bytes_o,

    // Mask memory; data one cycle after the address.
    output wire                        mask_read_o,
    output wire [15:0]                 mask_addr_o,
    input  wire [LANES-1:0]            mask_data_i,

    // A job, as its request is taken; valid only where ready. Empty: without words; final: the
    // instruction's last.
    output wire                        job_valid_o,
    input  wire                        job_ready_i,
    output wire                        job_empty_o,
    output wire                        job_final_o,
    output wire [2:0]                  job_kind_o,
    output wire [$clog2(GROUPS+1)-1:0] job_groups_o,
    output wire [15:0]                 job_dst_o,
    output wire [15:0]                 job_rows_o,
    output wire [5:0]                  job_chain_o,
    output wire [95:0]                 job_deps_o,

    // A load is in progress; a gather waits for dependencies; W2 rows.
    output wire                        busy_o,
    output wire                        wait_o,
    output reg  [15:0]                 w2_fetched_o,
    output reg  [15:0]                 w2_rows_o,
    // One-cycle pulse; info is the instruction index. The engine stops until it is reset.
    output wire                        error_valid_o,
    output wire [7:0]                  error_code_o,
    output wire [23:0]                 error_info_o
);
  `include "rowvit_defs.vh"

  localparam GW = $clog2(GROUPS + 1);
  localparam DEP_W = 17 * N_ENGINE;
  localparam LW = $clog2(LANES);
  // 64-bit words per residual address.
  localparam RES_WORDS = (ROWS * GROUPS + 3) / 4;
  // Residuals of an address fill whole words, or those of two addresses do (one bank pair: padded).
  localparam PAIRED = ROWS * GROUPS % 4 == 2 && ROWS * GROUPS > 2;
  localparam [15:0] LANES_16 = LANES[15:0];

  localparam S_IDLE = 4'd0, S_SIZE = 4'd1, S_CHECK = 4'd2, S_GATHER = 4'd3, S_MASK = 4'd4,
             S_READ = 4'd5, S_LATCH = 4'd6, S_HAD = 4'd7, S_SCAN = 4'd8, S_STOP = 4'd9;

  wire [2:0] kind = instr_i[F_LOAD_KIND+:3];
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
  wire next_taken = next_valid_q && job_ready_i && (req_ready_i || !next_read_q);
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
  reg final_word_q;  // registered: left_q stands while a word is read and searched
  always @(posedge clk_i) final_word_q <= left_q <= LANES_16;
  wire [LANES-1:0] tail = final_word_q ? ~({LANES{1'b1}} << left_q) : {LANES{1'b1}};
  wire [LANES-1:0] rest = bits_q & ~lowest;

  // A found row goes through two registers: its bit, and its index, where its address is multiplied out.
  reg lowest_valid_q, found_q;
  reg [LANES-1:0] lowest_q;
  wire [LW-1:0] lowest_index;
  reg [LW-1:0] found_index_q;
  wire found_free = !found_q || next_free;
  wire lowest_free = !lowest_valid_q;  // a row every other cycle, but a short path
  wire find = state_q == S_SCAN && bits_q != 0 && lowest_free;
  reg scanned_q;  // known a cycle later
  always @(posedge clk_i) begin
    scanned_q <= state_q == S_SCAN && bits_q == 0 && !lowest_valid_q && !found_q;
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
  wire close_issue = state_q == S_SCAN && scanned_q && final_word_q && next_free;
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
              else if (scanned_q && !final_word_q) state_q <= S_MASK;
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
      LOADKIND_RESIDUAL: bytes_q <= {res_words[28:0], 3'b0};
      default: bytes_q <= {13'b0, rows, 3'b0};
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
        end else if (scanned_q && !final_word_q) begin
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

  assign req_valid_o = next_valid_q && next_read_q && job_ready_i;
  assign req_addr_o = base_i + {32'b0, next_addr_q};
  assign req_bytes_o = next_bytes_q;
  assign mask_addr_o = mask_read_q;
  assign mask_read_o = state_q == S_MASK || state_q == S_READ;
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

  // ---------------------------------------------------------------- job
  // The instruction's other fields travel with the job; they are captured with it.
  reg [2:0] next_kind_q;
  reg [GW-1:0] next_groups_q;
  reg [DEP_W-1:0] next_deps_q;
  always @(posedge clk_i) begin
    if (next_free) begin
      next_kind_q <= kind;
      next_groups_q <= groups;
      next_deps_q <= deps;
    end
  end

  assign job_valid_o = next_taken;
  assign job_empty_o = !next_read_q;
  assign job_final_o = next_final_q;
  assign job_kind_o = next_kind_q;
  assign job_groups_o = next_groups_q;
  assign job_dst_o = next_dst_q;
  assign job_rows_o = next_rows_q;
  assign {job_chain_o, job_deps_o} = next_deps_q;
  assign busy_o = state_q != S_IDLE || next_valid_q;
  assign wait_o = state_q == S_GATHER && !gather_ok_q;
endmodule

`default_nettype wire
