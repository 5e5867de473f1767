// SPDX-License-Identifier: Apache-2.0
// Scalar stream of one (row, group): reads a row's words from the token memory and emits one scalar
// per cycle with its index k. Dense rows emit all scalars. Compressed rows emit their non-zeros: per
// segment the bitmap is read, then only the words that hold values. A row with no non-zero emits one
// zero scalar, so that every row ends with x_last_o.
// Throughput 1 scalar per cycle (a segment costs at least 5 cycles to fetch), latency about 5.
// Resources at 64 lanes: about 550 LUT, 320 FF, and 130 LUT RAM.
`default_nettype none
module rowvit_fetch #(
    parameter LANES  = 64,
    parameter BANK_W = 1  // bits of a row's number
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
    output reg               x_valid_o,
    input  wire              x_ready_i,
    output reg  [8:0]        x_data_o,
    output reg  [10:0]       x_idx_o,
    output reg               x_last_o
);
  `include "rowvit_defs.vh"
  localparam LW = $clog2(LANES);
  localparam SEGW = 1 + LANES / 8;
  localparam SEG_IW = 11 - LW;  // segment number within a row
  localparam CMD_W = BANK_W + 29;

  function [LW:0] count_of;  // seven more than a bitmap has ones: a multiple of 8 for whole words
    input [LANES-1:0] bitmap;
    integer i;
    reg [3:0] ones;
    begin
      count_of = 7;
      for (i = 0; i < LANES / 8; i = i + 1) begin
        ones = {3'd0, bitmap[8*i]} + {3'd0, bitmap[8*i+1]} + {3'd0, bitmap[8*i+2]} + {3'd0, bitmap[8*i+3]}
             + {3'd0, bitmap[8*i+4]} + {3'd0, bitmap[8*i+5]} + {3'd0, bitmap[8*i+6]} + {3'd0, bitmap[8*i+7]};
        count_of = count_of + {{(LW - 3) {1'b0}}, ones};
      end
    end
  endfunction

  function [LW-1:0] encode;  // one-hot to binary
    input [LANES-1:0] onehot;
    integer i, b;
    begin
      encode = {LW{1'b0}};
      for (b = 0; b < LW; b = b + 1)
        for (i = 0; i < LANES; i = i + 1)
          if (((i >> b) & 1) == 1) encode[b] = encode[b] | onehot[i];
    end
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

  // ---------------------------------------------------------------- reading
  localparam F_IDLE = 3'd0, F_WORDS = 3'd1, F_BITMAP = 3'd2, F_WAIT = 3'd3, F_COUNT = 3'd4;
  reg  [2:0]        state_q;
  reg               sparse_q;
  reg  [BANK_W-1:0] bank_q;
  reg  [15:0]       addr_q;
  reg  [10:0]       left_q;   // words (dense) or segments (sparse) still to do
  // A memory read, and the count of its bits, are a cycle each.
  reg  [LANES-1:0]  bitmap_q;
  wire [LW:0] bitmap_count = count_of(bitmap_q);
  reg  [3:0]        words_q;  // value words of this segment still to read
  reg  [SEG_IW-1:0] seg_q;
  reg  [15:0]       seg_addr_q;
  reg               word_pending_q;  // a value word is on its way

  wire              emit_ready;
  wire [2:0]        word_count;
  wire              bm_ready;
  wire [2:0]        bm_count;
  wire              word_room = word_count + {2'd0, word_pending_q} < 3'd4;
  wire              is_words = state_q == F_WORDS;
  assign rd_valid_o = (is_words && word_room) || (state_q == F_BITMAP && bm_ready);
  assign rd_bank_o  = bank_q;
  assign rd_addr_o  = addr_q;
  wire   rd         = rd_valid_o && rd_ready_i;
  assign cmd_take   = state_q == F_IDLE && cmd_valid && emit_ready;

  wire              got_bitmap = state_q == F_COUNT;
  wire              bitmap_any = |bitmap_q;
  wire              last_seg = left_q == 11'd1;
  // The end marker follows the last segment's bitmap; it waits in this flag for a free entry.
  reg               end_q;
  wire              bm_push_map = got_bitmap && bitmap_any;
  wire              bm_push_end = end_q && bm_count != 3'd4;

  always @(posedge clk_i) begin
    if (rd_dvalid_i) word_pending_q <= 1'b0;
    if (rd && is_words) word_pending_q <= 1'b1;
    case (state_q)
      F_IDLE:
      if (cmd_take) begin
        sparse_q   <= cmd[CMD_W-1];
        bank_q     <= cmd[27+:BANK_W];
        addr_q     <= cmd[26:11];
        seg_addr_q <= cmd[26:11];
        seg_q      <= {SEG_IW{1'b0}};
        left_q     <= cmd[CMD_W-1] ? cmd[10:0] : {3'd0, cmd[10:3]};
        state_q    <= cmd[CMD_W-1] ? F_BITMAP : F_WORDS;
      end
      F_WORDS:
      if (rd) begin
        addr_q <= addr_q + 16'd1;
        if (sparse_q) begin
          words_q <= words_q - 4'd1;
          if (words_q == 4'd1) begin
            addr_q     <= seg_addr_q + SEGW[15:0];
            seg_addr_q <= seg_addr_q + SEGW[15:0];
            seg_q      <= seg_q + 1'b1;
            left_q     <= left_q - 11'd1;
            state_q    <= last_seg ? F_IDLE : F_BITMAP;
          end
        end else begin
          left_q <= left_q - 11'd1;
          if (last_seg) state_q <= F_IDLE;
        end
      end
      F_BITMAP:
      if (rd) begin
        addr_q  <= addr_q + 16'd1;
        state_q <= F_WAIT;
      end
      F_WAIT:  // a value word read before cannot be mistaken: reads return in order
      if (rd_dvalid_i) begin
        bitmap_q <= rd_data_i[LANES-1:0];
        state_q  <= F_COUNT;
      end
      default: begin  // F_COUNT
        words_q <= {{(6 - LW) {1'b0}}, bitmap_count[LW:3]};
        if (bitmap_any) state_q <= F_WORDS;
        else begin
          addr_q     <= seg_addr_q + SEGW[15:0];
          seg_addr_q <= seg_addr_q + SEGW[15:0];
          seg_q      <= seg_q + 1'b1;
          left_q     <= left_q - 11'd1;
          state_q    <= last_seg ? F_IDLE : F_BITMAP;
        end
      end
    endcase
    if (got_bitmap && last_seg) end_q <= 1'b1;
    else if (bm_push_end) end_q <= 1'b0;
    if (!rst_ni) begin
      state_q        <= F_IDLE;
      end_q          <= 1'b0;
      word_pending_q <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- buffers
  wire        word_valid;
  wire        word_take;
  wire [63:0] word;
  rowvit_fifo #(
      .WIDTH(64),
      .DEPTH(4)
  ) u_words (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(word_pending_q && rd_dvalid_i), .in_ready_o(),
      .in_data_i(rd_data_i),
      .out_valid_o(word_valid), .out_ready_i(word_take), .out_data_o(word), .count_o(word_count)
  );

  localparam BM_W = 2 + LW + SEG_IW + LANES;  // end, count, segment, bitmap
  wire                    bm_valid;
  wire                    bm_take;
  wire [BM_W-1:0]         bm_head;
  assign bm_ready = bm_count < 3'd3 && !end_q;
  rowvit_fifo #(
      .WIDTH(BM_W),
      .DEPTH(4)
  ) u_bitmaps (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(bm_push_map || bm_push_end), .in_ready_o(),
      .in_data_i({!bm_push_map, bitmap_count, seg_q, bitmap_q}),
      .out_valid_o(bm_valid), .out_ready_i(bm_take), .out_data_o(bm_head), .count_o(bm_count)
  );
  wire             bm_end = bm_head[BM_W-1];

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

  // ---------------------------------------------------------------- emission
  reg               sparse_e, unsigned_e, active_q;
  reg  [10:0]       todo_q, idx_q;
  reg  [63:0]       data_q;
  reg  [3:0]        have_q;   // bytes left in data_q
  reg  [LANES-1:0]  map_q;
  reg  [SEG_IW-1:0] map_seg_q;
  reg  [LW:0] map_left_q;  // count_of(map_q)

  wire             room     = !x_valid_o || x_ready_i;
  wire             map_any  = map_left_q != 7;
  wire [LANES-1:0] map_rest = map_q & (map_q - {{(LANES - 1) {1'b0}}, 1'b1});
  wire             map_done = map_left_q == 8;
  wire             at_end   = bm_valid && bm_end;
  wire             emit_dense  = active_q && !sparse_e && have_q != 4'd0 && room;
  wire             emit_sparse = active_q && sparse_e && map_any && have_q != 4'd0 && room;
  wire             emit_null   = active_q && sparse_e && !map_any && at_end && room;
  wire             emit     = emit_dense || emit_sparse || emit_null;
  wire             last     = emit_dense ? todo_q == 11'd1 : emit_null || (map_done && at_end);
  wire             drop     = emit_sparse && map_done;  // the word's tail is not used
  wire             used_up  = have_q == 4'd0 || drop || ((emit_dense || emit_sparse) && have_q == 4'd1);
  wire             need_map = !map_any || (emit_sparse && map_done);

  assign word_take = used_up && word_valid;
  assign bm_take   = need_map && bm_valid && active_q && sparse_e && (!bm_end || (emit && last));
  assign job_take  = job_valid && (!active_q || (emit && last));

  always @(posedge clk_i) begin
    if (room) x_valid_o <= emit;
    if (emit) begin
      x_data_o <= emit_null ? 9'd0 : {!unsigned_e && data_q[7], data_q[7:0]};
      x_idx_o  <= !sparse_e ? idx_q :
                  emit_null ? 11'd0 : {map_seg_q, encode(map_q & ~map_rest)};
      x_last_o <= last;
      idx_q    <= idx_q + 11'd1;
      todo_q   <= todo_q - 11'd1;
      if (last) active_q <= 1'b0;
    end
    if (emit_dense || emit_sparse) begin
      data_q <= {8'd0, data_q[63:8]};
      have_q <= have_q - 4'd1;
    end
    if (word_take) begin
      data_q <= word;
      have_q <= 4'd8;
    end else if (used_up) have_q <= 4'd0;
    if (emit_sparse) begin
      map_q      <= map_rest;
      map_left_q <= map_left_q - 1'b1;
    end
    if (bm_take && !bm_end) {map_left_q, map_seg_q, map_q} <= bm_head[BM_W-2:0];
    if (job_take) begin
      active_q   <= 1'b1;
      sparse_e   <= job[12];
      unsigned_e <= job[11];
      todo_q     <= job[10:0];
      idx_q      <= 11'd0;
    end
    if (!rst_ni) begin
      x_valid_o <= 1'b0;
      active_q  <= 1'b0;
      have_q    <= 4'd0;
      map_left_q <= 7;
    end
  end
endmodule
`default_nettype wire
