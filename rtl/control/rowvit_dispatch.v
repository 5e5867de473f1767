// SPDX-License-Identifier: Apache-2.0
// Fetches the program once per pass, and its beginning once more (docs/isa.md, Passes), and hands
// each instruction to its engine's queue, in order. Dependencies, which count a pass's operations,
// become absolute: every engine's number of operations at the pass's start is added. The last slot of a
// queued instruction is its index, for error reports. Fetching runs ahead by up to FETCHES instructions,
// dispatching by QUEUE_DEPTH + 1 more per engine, also into the next pass.
// Throughput: one instruction per 10 cycles (6 at 128 bits). Latency: 11 cycles after the fetch.
`default_nettype none

module rowvit_dispatch #(
    // First 32 bits of the configuration's SHA-256; programs for another one are refused.
    parameter [31:0] CONFIG_HASH = 32'h0,
    // Bits of a word of the memory port: 64 or 128.
    parameter PORT_BITS = 64
) (
    input  wire         clk_i,
    input  wire         rst_ni,
    // Back to idle. A start in the same cycle wins.
    input  wire         clear_i,
    input  wire         start_i,
    input  wire [63:0]  base_i,
    input  wire [31:0]  program_i,
    input  wire [31:0]  length_i,
    input  wire [15:0]  passes_i,

    // Reader client.
    output wire         req_valid_o,
    input  wire         req_ready_i,
    output wire [63:0]  req_addr_o,
    output wire [31:0]  req_bytes_o,
    input  wire         rsp_valid_i,
    output wire         rsp_ready_o,
    input  wire [PORT_BITS-1:0] rsp_data_i,

    // Queues: 0 LOAD, 1 EXEC, 2 NORM, 3 SELECT, 4 RECV.
    output wire         q0_valid_o,
    input  wire         q0_ready_i,
    output wire [511:0] q0_instr_o,
    output wire         q1_valid_o,
    input  wire         q1_ready_i,
    output wire [511:0] q1_instr_o,
    output wire         q2_valid_o,
    input  wire         q2_ready_i,
    output wire [511:0] q2_instr_o,
    output wire         q3_valid_o,
    input  wire         q3_ready_i,
    output wire [511:0] q3_instr_o,
    output wire         q4_valid_o,
    input  wire         q4_ready_i,
    output wire [511:0] q4_instr_o,

    // Not everything has been dispatched yet.
    output wire         busy_o,
    // One-cycle pulse; info is the instruction index. Dispatching stops until clear_i.
    output wire         error_valid_o,
    output wire [7:0]   error_code_o,
    output wire [23:0]  error_info_o
);
  `include "rowvit_defs.vh"

  localparam S_IDLE = 3'd0, S_RESTART = 3'd1, S_HEADER = 3'd2, S_RUN = 3'd3, S_DRAIN = 3'd4,
             S_STOP = 3'd5;

  reg [2:0] state_q;
  reg [15:0] passes_left_q;
  reg first_q, last_q;     // the first pass; the one after the last
  reg [15:0] finish_q;     // where that one ends
  wire flush = clear_i || start_i;
  wire running = state_q == S_HEADER || state_q == S_RUN;

  // Fetch.
  reg [63:0] fetch_addr_q;
  // Whole instructions between the fetch address and the end of the blob.
  reg [25:0] fetch_left_q;
  // Instructions requested but not yet complete.
  reg [2:0] inflight_q;
  wire [31:0] room = length_i - program_i;
  wire request = req_valid_o && req_ready_i;

  assign req_valid_o = running && inflight_q != FETCHES[2:0] && fetch_left_q != 0;
  assign req_addr_o = fetch_addr_q;
  assign req_bytes_o = INSTR_W / 8;

  always @(posedge clk_i) begin
    if (state_q == S_RESTART) begin
      fetch_addr_q <= base_i + {32'b0, program_i};
      fetch_left_q <= program_i < length_i ? room[31:6] : 26'd0;
    end else if (request) begin
      fetch_addr_q <= fetch_addr_q + INSTR_W / 8;
      fetch_left_q <= fetch_left_q - 1'b1;
    end
  end

  // Assembly, the first word lowest.
  localparam WORDS = INSTR_W / PORT_BITS, LAST_WORD = WORDS - 1;
  reg [INSTR_W-1:0] instr_q;
  reg instr_valid_q;
  reg [2:0] word_q;
  wire consume;
  wire word = rsp_valid_i && rsp_ready_o;
  wire complete = word && word_q == LAST_WORD[2:0];

  assign rsp_ready_o = !instr_valid_q;

  integer w;
  always @(posedge clk_i) begin
    for (w = 0; w < WORDS; w = w + 1)
      if (word && word_q == w[2:0]) instr_q[PORT_BITS*w+:PORT_BITS] <= rsp_data_i;
  end

  always @(posedge clk_i) begin
    word_q <= (word_q + {2'd0, word}) & {3{!complete}};
    inflight_q <= inflight_q + {{2{complete && !request}}, complete != request};
    // Words fetched beyond END are dropped.
    instr_valid_q <= (complete && running) || (instr_valid_q && !consume);
    if (!rst_ni || flush) begin
      word_q <= 3'd0;
      inflight_q <= 3'd0;
      instr_valid_q <= 1'b0;
    end
  end

  // Decode, in registers: what is looked at arrives at least one word before the last.
  wire [3:0] opcode = instr_q[F_OPCODE+:4];
  reg [N_QUEUE-1:0] target_q;
  reg end_q, header_ok_q;
  always @(posedge clk_i) begin
    target_q[Q_LOAD] <= opcode == OP_LOAD[3:0];
    target_q[Q_EXEC] <= opcode == OP_MATMUL[3:0] || opcode == OP_ATTN[3:0];
    target_q[Q_NORM] <= opcode == OP_NORM[3:0];
    target_q[Q_SELECT] <= opcode == OP_SELECT[3:0];
    target_q[Q_RECV] <= opcode == OP_RECV[3:0];
    end_q <= opcode == OP_END[3:0];
    header_ok_q <= opcode == OP_HEADER[3:0] && instr_q[F_HEADER_CONFIG_HASH+:32] == CONFIG_HASH
        && instr_q[F_HEADER_ABI+:16] == ABI_VERSION;
  end
  wire is_end = end_q && state_q == S_RUN;
  wire [N_QUEUE-1:0] queue_ready;
  // It goes on once its queue has room, which no one else takes. Known a cycle later.
  reg go_q;
  wire [N_QUEUE-1:0] push = target_q & {N_QUEUE{go_q}};
  wire bad_header = instr_valid_q && state_q == S_HEADER && !header_ok_q;
  wire bad_opcode = instr_valid_q && state_q == S_RUN && target_q == 0 && !is_end;
  // The next instruction lies beyond the blob.
  wire bad_range = running && !instr_valid_q && inflight_q == 0 && fetch_left_q == 0;
  wire error = bad_header || bad_opcode || bad_range;
  reg [23:0] index_q;

  wire finish = last_q && index_q[15:0] == finish_q;

  assign consume = go_q;
  always @(posedge clk_i) begin
    go_q <= instr_valid_q && !go_q && !flush && rst_ni
        && (state_q == S_HEADER ? header_ok_q : state_q == S_RUN && (end_q || |(target_q & queue_ready)));
  end

  always @(posedge clk_i) begin
    if (start_i) begin
      state_q <= passes_i != 0 ? S_RESTART : S_IDLE;
      passes_left_q <= passes_i;
      first_q <= 1'b1;
      last_q <= 1'b0;
    end else begin
      case (state_q)
        S_RESTART: state_q <= S_HEADER;
        S_HEADER: if (error) state_q <= S_STOP;
                  else if (consume) state_q <= S_RUN;
        S_RUN: if (error) begin
                   state_q <= S_STOP;
               end else if (consume && (is_end || finish)) begin
                   state_q <= S_DRAIN;
                   first_q <= 1'b0;
                   last_q <= !last_q && passes_left_q == 16'd1 && finish_q != 16'd0;
                   if (!last_q) passes_left_q <= passes_left_q - 1'b1;
               end
        S_DRAIN: if (inflight_q == 0)
                     state_q <= passes_left_q == 0 && !last_q ? S_IDLE : S_RESTART;
        default: ;
      endcase
    end
    if (!rst_ni || (clear_i && !start_i)) state_q <= S_IDLE;
  end

  always @(posedge clk_i) begin
    if (state_q == S_RESTART) index_q <= 0;
    else if (consume) index_q <= index_q + 1'b1;
  end

  always @(posedge clk_i) begin
    if (state_q == S_HEADER && consume) finish_q <= instr_q[F_HEADER_FINISH+:16];
  end

  // Operations dispatched since start, and at the start of this pass, per queue.
  reg [16*N_QUEUE-1:0] total_q, base_q;
  integer q;
  always @(posedge clk_i) begin
    if (start_i) begin
      total_q <= 0;
      base_q <= 0;
    end else begin
      if (state_q == S_RESTART) base_q <= total_q;
      for (q = 0; q < N_QUEUE; q = q + 1)
        if (push[q]) total_q[16*q+:16] <= total_q[16*q+:16] + 1'b1;
    end
  end

  // EXEC and DRAIN count the same operations.
  wire [16*N_ENGINE-1:0] dep;
  genvar e;
  generate
    for (e = 0; e < N_ENGINE; e = e + 1) begin : g_dep
      wire [15:0] relative = instr_q[F_DEPS+16*e+:16];
      wire [15:0] base = base_q[16*ENGINE_QUEUE[8*e+:8]+:16];
      // Far enough below any count, and safe from the wrap of the 16-bit comparison.
      assign dep[16*e+:16] = base + (relative == NO_DEP ? 16'hC000 : relative);
    end
  endgenerate

  wire previous = instr_q[F_FLAGS + FLAG_PREVIOUS];
  wire is_void = (first_q && previous) || (last_q && !previous);

  // Each queue holds only the slots its engine has, and the index. Its head is in registers, which
  // take a cycle between two instructions: then nothing of the queue depends on when it is taken.
  localparam VOID = F_FLAGS + FLAG_VOID;
  wire [16*MAX_SLOTS-1:0] slots = {instr_q[16*MAX_SLOTS-1:F_OPERANDS], dep, instr_q[F_DEPS-1:VOID+1],
                                   is_void, instr_q[VOID-1:0]};
  wire [N_QUEUE-1:0] out_valid;
  wire [N_QUEUE-1:0] out_ready = {q4_ready_i, q3_ready_i, q2_ready_i, q1_ready_i, q0_ready_i};
  wire [INSTR_W*N_QUEUE-1:0] out_instr;
  genvar k;
  generate
    for (k = 0; k < N_QUEUE; k = k + 1) begin : g_queue
      localparam W = 16 * QUEUE_SLOTS[8*k+:8];
      wire [W+15:0] front;
      wire front_valid;
      reg [W+15:0] head_q;
      reg valid_q;
      wire valid_d = (valid_q ? !out_ready[k] : front_valid) && rst_ni && !flush;
      // Its inverse, for the enables of half the bits each.
      wire [1:0] free;
      rowvit_copies #(.N(2)) u_free (.clk_i(clk_i), .d_i(!valid_d), .q_o(free));

      rowvit_fifo #(.WIDTH(W + 16), .DEPTH(QUEUE_DEPTH)) u_queue (
          .clk_i(clk_i),
          .rst_ni(rst_ni),
          .clear_i(flush),
          .in_valid_i(push[k]),
          .in_ready_o(queue_ready[k]),
          .in_data_i({index_q[15:0], slots[W-1:0]}),
          .out_valid_o(front_valid),
          .out_ready_i(!valid_q),
          .out_data_o(front),
          .count_o()
      );

      always @(posedge clk_i) begin
        valid_q <= valid_d;
        if (free[0]) head_q[W/2-1:0] <= front[W/2-1:0];
        if (free[1]) head_q[W+15:W/2] <= front[W+15:W/2];
      end

      assign out_valid[k] = valid_q;
      assign out_instr[INSTR_W*k+:INSTR_W] = {head_q[W+15:W], {(F_INDEX-W){1'b0}}, head_q[W-1:0]};
    end
  endgenerate

  assign {q4_valid_o, q3_valid_o, q2_valid_o, q1_valid_o, q0_valid_o} = out_valid;
  assign {q4_instr_o, q3_instr_o, q2_instr_o, q1_instr_o, q0_instr_o} = out_instr;

  assign busy_o = state_q != S_IDLE;
  assign error_valid_o = error;
  assign error_code_o = bad_header ? ERROR_BAD_HASH
                      : bad_opcode ? ERROR_BAD_OPCODE : ERROR_ADDRESS_RANGE;
  assign error_info_o = index_q;
endmodule

`default_nettype wire
