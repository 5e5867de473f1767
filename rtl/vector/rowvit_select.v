// SPDX-License-Identifier: Apache-2.0
// Token selection (docs/numerics.md, section 7).
// A search, one bit of the score per pass over the scores and highest first, finds the keep-th
// largest; bits that no score has cost one cycle, and the search ends as soon as exactly `keep`
// scores reach the candidate. One more pass writes the table: the row of every kept token. The KEPT
// record leaves before the operation counts as done.
// Cycles: at most (bits + 2) * live + 1.5 * kept + 60. src_data_o: one cycle after src_addr_i.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_select #(
    // Rows per band: read ports of the source table.
    parameter ROWS = 2,
    // Depth of the table: tokens of an image, at most.
    parameter MAX_TOKENS = 320,
    // 1: places of rows move with them.
    parameter ROTARY = 0
) (
    input  wire               clk_i,
    input  wire               rst_ni,
    // SELECT instructions; taken when done.
    input  wire               instr_valid_i,
    output wire               instr_ready_o,
    input  wire [511:0]       instr_i,
    input  wire [95:0]        done_i,
    input  wire [95:0]        bands_i,
    output reg  [15:0]        done_o,
    output wire               busy_o,
    // Live tokens of the instruction's image, now and when it is done.
    input  wire [15:0]        live_i,
    output wire               kept_valid_o,
    output wire [15:0]        kept_o,
    // Score memory, one cycle.
    output wire               score_read_o,
    output wire [15:0]        score_addr_o,
    input  wire               score_ready_i,
    input  wire [23:0]        score_data_i,
    // Pre-selection row of each current row, one cycle.
    input  wire               src_read_i,
    input  wire [16*ROWS-1:0] src_addr_i,
    output wire [16*ROWS-1:0] src_data_o,
    // Places: one is read, and one that was read two cycles before is written.
    output wire               move_valid_o,
    output wire [`MV_ALL]     move_o,
    // KEPT records.
    output wire               out_valid_o,
    input  wire               out_ready_i,
    output wire [63:0]        out_data_o,
    output wire               out_eor_o
);
  `include "rowvit_defs.vh"
  localparam AW = $clog2(MAX_TOKENS);
  localparam CW = $clog2(MAX_TOKENS + 1);  // counts of tokens

  wire [11:0] tag = instr_i[F_IMAGE+:12];
  wire [15:0] keep = instr_i[F_SELECT_KEEP+:16];
  wire [31:0] threshold = instr_i[F_SELECT_THRESHOLD+:32];
  wire [AW-1:0] base = instr_i[F_SELECT_TABLE+:AW];

  // Dependencies, once met, stay so: they are registered.
  wire dep_ok;
  reg  dep_q;
  rowvit_dep_check u_dep_check (
      .chain_i(instr_i[F_CHAIN+:N_ENGINE]), .dep_i(instr_i[F_DEPS+:16*N_ENGINE]),
      .done_i(done_i), .bands_i(bands_i), .band_i(16'd0), .ok_o(dep_ok)
  );

  // ---------------------------------------------------------------- state
  localparam S_IDLE = 3'd0, S_USED = 3'd1, S_BIT = 3'd2, S_COUNT = 3'd3, S_MARK = 3'd4,
             S_HEADER = 3'd5, S_READ = 3'd6, S_WORD = 3'd7;
  reg [2:0]  state_q;
  reg [CW-1:0] token_q;   // scans: token whose score is addressed; record: next token
  reg          scan_q;    // the scan still addresses tokens
  reg          seen_q;    // the token addressed a cycle ago is part of the scan
  reg [AW-1:0] seen_token_q;
  reg [23:0]   used_q;    // bits that any score has
  reg [23:0]   bit_q;     // bit under test
  reg [23:0]   cut_q;     // scores of the keep best are not below
  reg [CW-1:0] count_q;   // scores that reach the candidate
  reg [CW-1:0] above_q;   // scores above cut_q, once the search ends
  reg [CW-1:0] ties_q;    // tokens that may still be kept with a score of exactly cut_q
  reg [CW-1:0] kept_q;    // tokens kept

  wire scan_end = !scan_q && !seen_q;
  wire [23:0] candidate = cut_q | bit_q;
  // Without a limit the threshold alone decides; otherwise keep < live <= MAX_TOKENS. Registered like
  // the dependencies, with which the live count is final.
  wire keep_all = {1'b0, keep} + 17'd1 >= {1'b0, live_i};
  reg  keep_all_q;
  reg  [CW-1:0] limit_q;
  always @(posedge clk_i) begin
    keep_all_q <= keep_all;
    limit_q <= keep_all ? {CW{1'b1}} : keep[CW-1:0];
  end
  wire [CW-1:0] token_next = token_q + 1'b1;

  // ---------------------------------------------------------------- table
  // A copy for each row that is gathered, and one for the record.
  reg           write_q;
  reg  [AW-1:0] write_token_q;
  wire          write = write_q && state_q == S_MARK;
  wire [AW-1:0] table_entry = base + kept_q[AW-1:0];
  wire [AW-1:0] token_entry = base + token_q[AW-1:0];
  wire [16*(ROWS+1)-1:0] table_addr = {{(16 - AW){1'b0}}, token_entry, src_addr_i};
  wire [16*(ROWS+1)-1:0] table_data;
  assign src_data_o = table_data[16*ROWS-1:0];
  genvar r;
  generate
    for (r = 0; r <= ROWS; r = r + 1) begin : g_table
      (* ram_style = "distributed" *) reg [AW-1:0] mem_q [0:MAX_TOKENS-1];
      reg [AW-1:0] read_q;
      always @(posedge clk_i) begin
        if (write) mem_q[table_entry] <= write_token_q;
        if (r == ROWS ? state_q == S_READ : src_read_i) read_q <= mem_q[table_addr[16*r+:AW]];
      end
      assign table_data[16*r+:16] = {{(16 - AW){1'b0}}, read_q};
    end
  endgenerate

  generate
    if (ROTARY != 0) begin : g_rotary
      reg [15:0] from_q, to_q;
      always @(posedge clk_i) begin
        from_q <= instr_i[F_SELECT_FROM+:16];
        to_q   <= instr_i[F_SELECT_TO+:16];
      end
      assign move_valid_o = write;
      assign move_o[`MV_FROM] = from_q + {{(16 - CW){1'b0}}, token_q};
      assign move_o[`MV_TO] = to_q + {{(16 - CW){1'b0}}, kept_q};
    end else begin : g_plain
      assign {move_valid_o, move_o} = 0;
    end
  endgenerate

  // ---------------------------------------------------------------- which tokens stay
  wire tie = score_data_i == cut_q;
  wire first = seen_token_q == 0;
  wire stays = first || ({8'd0, score_data_i} >= threshold
      && (score_data_i > cut_q || (tie && ties_q != 0)));

  // ---------------------------------------------------------------- record
  // Four tokens are addressed one after the other; each enters the word one cycle later.
  reg [63:0] word_q;
  reg [2:0]  fill_q;  // tokens of the word addressed
  reg        pad_q;   // there was no token left for the last of them; in S_WORD: for the next
  wire record_end = token_q == kept_q;
  wire [15:0] kept = {{(16 - CW){1'b0}}, kept_q};
  wire [15:0] words = {2'd0, kept[15:2]} + {15'd0, |kept[1:0]};
  assign out_valid_o = state_q == S_HEADER || state_q == S_WORD;
  assign out_data_o = state_q == S_HEADER
      ? {13'd0, words, 3'd0, kept, tag, RECORD_KEPT[3:0]} : word_q;
  assign out_eor_o = state_q == S_WORD && pad_q;

  assign score_addr_o = {{(16 - AW){1'b0}}, token_entry};
  assign score_read_o = scan_q;
  assign busy_o = state_q != S_IDLE;
  wire done = out_eor_o && out_ready_i;
  assign instr_ready_o = done;
  assign kept_valid_o = done;
  assign kept_o = kept;

  always @(posedge clk_i) begin
    // Scans: a token is addressed, its score is seen one cycle later.
    seen_q <= scan_q && score_ready_i;
    seen_token_q <= token_q[AW-1:0];
    if (scan_q && score_ready_i) begin
      token_q <= token_next;
      scan_q <= {{(16 - CW){1'b0}}, token_next} != live_i;
    end
    write_q <= seen_q && stays;
    write_token_q <= seen_token_q;
    pad_q <= record_end;
    fill_q <= (fill_q + 3'd1) & {3{state_q == S_READ}};
    dep_q <= instr_valid_i && dep_ok && !done;

    case (state_q)
      S_IDLE: begin
        token_q <= 1;
        used_q <= 24'd0;
        bit_q <= 24'h800000;
        cut_q <= keep == 16'd0 ? 24'hffffff : 24'd0;
        above_q <= 0;
        ties_q <= limit_q;
        kept_q <= 0;
        if (instr_valid_i && dep_q) begin
          scan_q <= 1'b1;
          if (keep_all_q || keep == 16'd0) begin
            token_q <= 0;
            state_q <= S_MARK;
          end else state_q <= S_USED;
        end
      end
      S_USED: begin
        if (seen_q) used_q <= used_q | score_data_i;
        if (scan_end) state_q <= S_BIT;
      end
      S_BIT: begin
        token_q <= 1;
        count_q <= 0;
        if (bit_q == 24'd0) begin
          ties_q <= limit_q - above_q;
          token_q <= 0;
          scan_q <= 1'b1;
          state_q <= S_MARK;
        end else if ((used_q & bit_q) == 24'd0) bit_q <= bit_q >> 1;
        else begin
          scan_q <= 1'b1;
          state_q <= S_COUNT;
        end
      end
      S_COUNT: begin
        if (seen_q && score_data_i >= candidate) count_q <= count_q + 1'b1;
        if (scan_end) begin
          bit_q <= bit_q >> 1;
          if (count_q >= limit_q) cut_q <= candidate;
          else above_q <= count_q;
          if (count_q == limit_q) begin  // no need to know the lowest of them
            bit_q <= 24'd0;
            above_q <= 0;
          end
          state_q <= S_BIT;
        end
      end
      S_MARK: begin
        if (seen_q && stays && tie && !first) ties_q <= ties_q - 1'b1;
        if (write_q) kept_q <= kept_q + 1'b1;
        if (scan_end && !write_q) begin
          token_q <= 0;
          state_q <= S_HEADER;
        end
      end
      S_HEADER: if (out_ready_i) state_q <= S_READ;
      S_READ: begin
        if (!record_end && !fill_q[2]) token_q <= token_next;
        if (fill_q != 3'd0) word_q <= {pad_q ? 16'd0 : table_data[16*ROWS+:16], word_q[63:16]};
        if (fill_q[2]) state_q <= S_WORD;
      end
      default: begin  // S_WORD
        if (out_ready_i) state_q <= pad_q ? S_IDLE : S_READ;
      end
    endcase

    if (done) done_o <= done_o + 16'd1;
    if (!rst_ni) begin
      state_q <= S_IDLE;
      scan_q <= 1'b0;
      seen_q <= 1'b0;
      done_o <= 16'd0;
    end
  end
endmodule

`default_nettype wire
