// SPDX-License-Identifier: Apache-2.0
// Scalar stream of one (row, group): reads a row's words from the token memory and emits one scalar
// per cycle with its index k. Dense rows emit all scalars. Compressed rows emit their non-zeros: per
// segment the bitmap is read, then only the words that hold values. A row with no non-zero emits one
// zero scalar, so that every row ends with x_last_o.
// Throughput 1 scalar per cycle (a segment costs at least 4 cycles to fetch, or two more than it has
// words), latency about 5, of a compressed row 10. Data may come any time after a read, in order: the queues
// of words and bitmaps have room for what was asked for, and refuse nothing.
`default_nettype none
module rowvit_fetch #(
    // Values of a segment.
    parameter LANES = 64,
    // Bits of a row's number.
    parameter BANK_W = 1
) (
    input  wire              clk_i,
    input  wire              rst_ni,
    input  wire              cmd_valid_i,
    output wire              cmd_ready_o,
    input  wire              cmd_sparse_i,
    input  wire              cmd_unsigned_i,
    input  wire [BANK_W-1:0] cmd_bank_i,
    input  wire [15:0]       cmd_addr_i,
    input  wire [10:0]       cmd_count_i,   // scalars (a multiple of 8), or segments
    output wire              rd_valid_o,
    input  wire              rd_ready_i,
    output wire [BANK_W-1:0] rd_bank_o,
    output wire [15:0]       rd_addr_o,
    input  wire              rd_dvalid_i,
    input  wire [63:0]       rd_data_i,
    output wire              x_valid_o,
    input  wire              x_ready_i,
    output wire [8:0]        x_data_o,
    output wire [10:0]       x_idx_o,
    output wire              x_last_o
);
  `include "rowvit_defs.vh"
  localparam LW = $clog2(LANES);
  localparam BYTES = LANES / 8;
  localparam SEGW = 1 + LANES / 8;
  localparam SEG_IW = 11 - LW;  // segment number within a row
  localparam HI_W = 8;          // number of a byte of bitmap within a row
  localparam CMD_W = BANK_W + 29;

  function [3:0] ones_of;
    input [7:0] bits;
    ones_of = {3'd0, bits[0]} + {3'd0, bits[1]} + {3'd0, bits[2]} + {3'd0, bits[3]}
            + {3'd0, bits[4]} + {3'd0, bits[5]} + {3'd0, bits[6]} + {3'd0, bits[7]};
  endfunction

  // ---------------------------------------------------------------- commands
  wire             cmd_valid;
  wire             cmd_take;
  wire [CMD_W-1:0] cmd;
  rowvit_fifo #(
      .WIDTH(CMD_W),
      .DEPTH(TILE_QUEUE)
  ) u_cmd (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(cmd_valid_i), .in_ready_o(cmd_ready_o),
      .in_data_i({cmd_sparse_i, cmd_unsigned_i, cmd_bank_i, cmd_addr_i, cmd_count_i}),
      .out_valid_o(cmd_valid), .out_ready_i(cmd_take), .out_data_o(cmd), .count_o()
  );
  wire             cmd_sparse = cmd[CMD_W-1];

  // ---------------------------------------------------------------- reading
  // A segment's bitmap is asked for just before the words of the segment that it follows. It arrives,
  // the ones of its bytes are counted (R_COUNT), and the counts become a number of words (R_WORDS), which
  // waits there until the words before are asked for.
  localparam R_IDLE = 2'd0, R_BITMAP = 2'd1, R_COUNT = 2'd2, R_WORDS = 2'd3;
  reg  [1:0]         state_q;
  reg  [BANK_W-1:0]  bank_q;
  reg                map_out_q;      // a bitmap is on its way
  reg  [3:0]         before_q;       // words that come before it
  reg  [15:0]        map_addr_q, map_next_q;  // of this segment's bitmap and the next one's
  reg  [SEG_IW-1:0]  seg_q;
  reg  [10:0]        left_q;         // segments
  reg  [LANES-1:0]   bitmap_q;
  reg  [4*BYTES-1:0] ones_q;         // of each byte
  reg                words_any_q;    // there are words to read
  reg  [7:0]         words_q;
  reg  [15:0]        addr_q;
  reg  [3:0]         pending_q;      // words on their way
  reg                word_ok_q;      // there is room for one
  reg                end_q;          // a row's last bitmap is in its queue

  wire               emit_ready;
  wire               ask_ready;
  wire [3:0]         word_count;
  wire [3:0]         bm_count;
  wire               idle     = state_q == R_IDLE;
  wire               last_seg = left_q == 11'd1;
  // Room for a bitmap, for the one before it and the mark of a row's end, which may be entered in this
  // cycle and the next.
  wire               go       = !words_any_q && ask_ready && bm_count < 4'd5;
  assign             cmd_take = idle && go && word_ok_q && cmd_valid && emit_ready;
  wire               give     = state_q == R_WORDS && go;
  wire               ask_map  = (cmd_take && cmd_sparse) || (give && !last_seg);
  wire               ask_word = (cmd_take && !cmd_sparse) || (words_any_q && word_ok_q && ask_ready);
  wire               next_map = map_out_q && before_q == 4'd0;
  wire               got_map  = rd_dvalid_i && next_map;
  wire               got_word = rd_dvalid_i && !next_map;
  rowvit_skid_buffer #(
      .WIDTH(BANK_W + 16)
  ) u_ask (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(ask_map || ask_word), .in_ready_o(ask_ready),
      .in_data_i(words_any_q ? {bank_q, addr_q}
                 : idle ? {cmd[27+:BANK_W], cmd[26:11]} : {bank_q, map_next_q}),
      .out_valid_o(rd_valid_o), .out_ready_i(rd_ready_i), .out_data_o({rd_bank_o, rd_addr_o})
  );

  // The words of a bitmap: a piece of eight ones, or what is left, each.
  reg  [LW:0]        total;
  always @* begin : count
    integer i;
    total = 7;
    for (i = 0; i < BYTES; i = i + 1) total = total + {{(LW - 3) {1'b0}}, ones_q[4*i+:4]};
  end
  wire [3:0]         map_words = {{(6 - LW) {1'b0}}, total[LW:3]};
  reg  [BYTES-1:0]   bytes;  // that are not zero
  always @* begin : any
    integer i;
    for (i = 0; i < BYTES; i = i + 1) bytes[i] = |bitmap_q[8*i+:8];
  end

  always @(posedge clk_i) begin : words
    integer i;
    word_ok_q <= word_count + pending_q < 4'd7;  // one may be asked for in this cycle
    pending_q <= pending_q + {3'd0, ask_word} - {3'd0, got_word};
    map_out_q <= ask_map || (map_out_q && !got_map);
    if (ask_map) before_q <= pending_q - {3'd0, got_word};
    else if (rd_dvalid_i) before_q <= before_q - 4'd1;
    if (ask_word) begin
      addr_q  <= addr_q + 16'd1;
      words_q <= words_q - 8'd1;
      if (words_q == 8'd1) words_any_q <= 1'b0;
    end
    if (got_map) bitmap_q <= rd_data_i[LANES-1:0];
    for (i = 0; i < BYTES; i = i + 1) ones_q[4*i+:4] <= ones_of(bitmap_q[8*i+:8]);
    end_q <= state_q == R_COUNT && last_seg;
    // a choice without an enable, which would be a control set for a bit or two; so below
    bank_q <= (cmd[27+:BANK_W] & {BANK_W{cmd_take}}) | (bank_q & {BANK_W{!cmd_take}});
    map_next_q <= map_addr_q + SEGW[15:0];
    case (state_q)
      R_IDLE: begin
        map_addr_q <= cmd[26:11];
        left_q     <= cmd[10:0];
        if (cmd_take) begin
          addr_q      <= cmd[26:11] + 16'd1;
          words_q     <= cmd[10:3] - 8'd1;
          words_any_q <= !cmd_sparse && cmd[10:3] != 8'd1;
          if (cmd_sparse) state_q <= R_BITMAP;
        end
      end
      R_BITMAP: if (got_map) state_q <= R_COUNT;
      R_COUNT: state_q <= R_WORDS;
      default:  // R_WORDS
      if (give) begin
        addr_q      <= map_addr_q + 16'd1;
        words_q     <= {4'd0, map_words};
        words_any_q <= map_words != 4'd0;
        map_addr_q  <= map_next_q;
        left_q      <= left_q - 11'd1;
        state_q     <= last_seg ? R_IDLE : R_BITMAP;
      end
    endcase
    if (idle || give) seg_q <= (seg_q + 1'b1) & {SEG_IW{!idle}};
    if (!rst_ni) begin
      state_q     <= R_IDLE;
      map_out_q   <= 1'b0;
      words_any_q <= 1'b0;
      word_ok_q   <= 1'b0;
      pending_q   <= 4'd0;
      end_q       <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- buffers
  wire        word_valid;
  wire        word_take;
  wire [63:0] word;
  rowvit_fifo #(
      .WIDTH(64),
      .DEPTH(8),
      .NEVER_REFUSED(1)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(got_word), .in_ready_o(),
      .in_data_i(rd_data_i),
      .out_valid_o(word_valid), .out_ready_i(word_take), .out_data_o(word), .count_o(word_count)
  );

  localparam BM_W = 1 + SEG_IW + BYTES + LANES;  // mark of a row's end, segment, nonzero bytes, bitmap
  wire            bm_valid;
  wire            bm_take;
  wire [BM_W-1:0] bm_head;
  rowvit_fifo #(
      .WIDTH(BM_W),
      .DEPTH(8),
      .NEVER_REFUSED(1)
  ) u_bitmaps (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i((state_q == R_COUNT && |bytes) || end_q), .in_ready_o(),
      .in_data_i({end_q, seg_q, bytes & {BYTES{!end_q}}, bitmap_q}),
      .out_valid_o(bm_valid), .out_ready_i(bm_take), .out_data_o(bm_head), .count_o(bm_count)
  );

  wire             job_valid;
  wire             job_take;
  wire [12:0]      job;
  rowvit_fifo #(
      .WIDTH(13),
      .DEPTH(4)
  ) u_jobs (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(cmd_take), .in_ready_o(emit_ready),
      .in_data_i({cmd[CMD_W-1], cmd[CMD_W-2], cmd[10:0]}),
      .out_valid_o(job_valid), .out_ready_i(job_take), .out_data_o(job), .count_o()
  );

  // ---------------------------------------------------------------- bitmaps to bytes
  // A bitmap gives a nonzero byte per cycle to a_*, from where it goes to b_*, which gives its bits.
  reg                m_valid_q, m_end_q;
  reg  [SEG_IW-1:0]  m_seg_q;
  reg  [BYTES-1:0]   m_bytes_q;  // still to give; none in the mark of a row's end
  reg  [LANES-1:0]   m_map_q;
  wire               a_valid, a_end_byte, a_last;  // a_last: of its bitmap
  wire [HI_W-1:0]    a_hi;
  wire [7:0]         a_byte;
  reg                b_valid_q, b_last_q, b_one_q;  // b_one_q: one bit is left
  reg  [HI_W-1:0]    b_hi_q;
  reg  [7:0]         b_byte_q;

  wire [BYTES-1:0] m_rest;
  wire [BYTES-1:0] m_pick = m_bytes_q & ~m_rest;
  wire             m_last = m_rest == {BYTES{1'b0}};
  reg  [7:0]       m_byte;
  reg  [LW-4:0]    m_number;
  always @* begin : pick
    integer i;
    m_byte   = 8'd0;
    m_number = {(LW - 3) {1'b0}};
    for (i = 0; i < BYTES; i = i + 1) begin
      m_byte   = m_byte | (m_map_q[8*i+:8] & {8{m_pick[i]}});
      m_number = m_number | (i[LW-4:0] & {(LW - 3) {m_pick[i]}});
    end
  end
  wire [7:0]       b_rest;
  wire [7:1]       b_pick = b_byte_q[7:1] & ~b_rest[7:1];
  wire [7:0]       b_next;
  // what is left after the lowest, without a carry
  genvar k;
  generate
    assign m_rest[0] = 1'b0;
    assign b_rest[0] = 1'b0;
    for (k = 1; k < BYTES; k = k + 1) begin : g_m_rest
      assign m_rest[k] = m_bytes_q[k] && |m_bytes_q[k-1:0];
    end
    for (k = 1; k < 8; k = k + 1) begin : g_b_rest
      assign b_rest[k] = b_byte_q[k] && |b_byte_q[k-1:0];
    end
  endgenerate
  wire [2:0]       b_bit  = {|b_pick[7:4], |{b_pick[7:6], b_pick[3:2]},
                             |{b_pick[7], b_pick[5], b_pick[3], b_pick[1]}};

  // ---------------------------------------------------------------- emission
  reg               sparse_q, unsigned_q, active_q;
  reg  [10:0]       todo_q, idx_q;
  reg               todo_one_q;  // dense rows are longer than one scalar
  reg  [63:0]       data_q;
  reg  [7:0]        have_q;      // bytes of data_q that are left, the next one first

  wire             room;
  wire             a_end      = a_valid && a_end_byte;
  wire             emit_value = active_q && room && have_q[0] && (!sparse_q || b_valid_q);
  wire             emit_null  = active_q && room && sparse_q && !b_valid_q && a_end;
  wire             emit       = emit_value || emit_null;
  wire             last       = sparse_q ? a_end && (!b_valid_q || b_one_q) : todo_one_q;
  wire             b_done     = emit_value && sparse_q && b_one_q;
  wire             b_load     = (!b_valid_q || b_done) && a_valid && !a_end_byte;
  wire             a_take     = b_load || (emit && sparse_q && last);
  wire             a_free;
  // a bitmap's last word may have a tail that is not used
  wire             used_up    = !have_q[0] || (emit_value && !have_q[1]) || (b_done && b_last_q);

  assign b_next    = (a_byte & {8{b_load}}) | (b_rest & {8{!b_load}});
  assign bm_take   = !m_valid_q || (a_free && m_last);
  assign word_take = used_up;
  assign job_take  = !active_q || (emit && last);

  rowvit_skid_buffer #(
      .WIDTH(HI_W + 10)
  ) u_bytes (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(m_valid_q), .in_ready_o(a_free), .in_data_i({m_end_q, m_last, m_seg_q, m_number, m_byte}),
      .out_valid_o(a_valid), .out_ready_i(a_take), .out_data_o({a_end_byte, a_last, a_hi, a_byte})
  );

  rowvit_skid_buffer #(
      .WIDTH(21)
  ) u_out (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(emit), .in_ready_o(room),
      .in_data_i({last, sparse_q ? {b_hi_q, b_bit} & {11{b_valid_q}} : idx_q,
                  {!unsigned_q && data_q[7], data_q[7:0]} & {9{!sparse_q || b_valid_q}}}),
      .out_valid_o(x_valid_o), .out_ready_i(x_ready_i), .out_data_o({x_last_o, x_idx_o, x_data_o})
  );

  always @(posedge clk_i) begin
    m_valid_q <= bm_valid || !bm_take;
    if (bm_take) {m_end_q, m_seg_q, m_map_q} <= {bm_head[BM_W-1-:1+SEG_IW], bm_head[LANES-1:0]};
    if (bm_take || a_free)
      m_bytes_q <= (bm_head[LANES+:BYTES] & {BYTES{bm_take}}) | (m_rest & {BYTES{!bm_take}});
    b_valid_q <= b_load || (b_valid_q && !b_done);
    if (b_load) {b_last_q, b_hi_q} <= {a_last, a_hi};
    if (b_load || (emit_value && sparse_q)) begin
      b_byte_q <= b_next;
      b_one_q  <= b_load ? ones_of(a_byte) == 4'd1 : ones_of(b_rest) == 4'd1;
    end

    if (emit) begin
      idx_q      <= idx_q + 11'd1;
      todo_q     <= todo_q - 11'd1;
      todo_one_q <= todo_q == 11'd2;
    end
    active_q <= job_valid || !job_take;
    {sparse_q, unsigned_q} <= (job[12:11] & {2{job_take}}) | ({sparse_q, unsigned_q} & {2{!job_take}});
    if (job_take) begin
      todo_q     <= job[10:0];
      todo_one_q <= 1'b0;
      idx_q      <= 11'd0;
    end
    // what enters above is not in have_q; a zero would be a reset of eight bits
    if (emit_value) data_q <= {word[63:56], data_q[63:8]};
    if (used_up) data_q <= word;
    have_q <= {8{used_up && word_valid}}
            | ({8{!used_up}} & (emit_value ? {1'b0, have_q[7:1]} : have_q));
    if (!rst_ni) begin
      active_q  <= 1'b0;
      have_q    <= 8'd0;
      m_valid_q <= 1'b0;
      b_valid_q <= 1'b0;
    end
  end
endmodule
`default_nettype wire
