// SPDX-License-Identifier: Apache-2.0
// RECV: one image's token rows from the input stream to the token memory.
// Prefix rows are not in the stream; they are written as zeros. TLAST must come with the last word
// of the last row; if it comes earlier or not then, the engine reports it and waits for a reset.
// No word is taken before its operation begins, or behind TLAST: the next packet is the next operation's.
// Throughput: one 64-bit word per cycle, 2 cycles between bands. Latency: 2 cycles.
`default_nettype none

module rowvit_recv #(
    // Token rows per band, each in its own memory bank.
    parameter ROWS = 2
) (
    input  wire            clk_i,
    input  wire            rst_ni,

    // Held until the operation is complete.
    input  wire            instr_valid_i,
    output wire            instr_ready_o,
    input  wire [511:0]    instr_i,
    input  wire [95:0]     done_i,
    input  wire [95:0]     bands_i,
    output wire [15:0]     done_o,
    output wire [15:0]     bands_o,

    input  wire [63:0]     s_axis_tdata,
    input  wire            s_axis_tvalid,
    output wire            s_axis_tready,
    input  wire            s_axis_tlast,

    // Token memory, one bank per row.
    output wire [ROWS-1:0] tw_valid_o,
    input  wire [ROWS-1:0] tw_ready_i,
    output wire [15:0]     tw_addr_o,
    output wire [63:0]     tw_data_o,

    // A word has been taken from the stream; the next one is waited for.
    output wire            word_o,
    output wire            starved_o,
    // One-cycle pulse; info is the instruction index.
    output wire            error_valid_o,
    output wire [7:0]      error_code_o,
    output wire [23:0]     error_info_o
);
  `include "rowvit_defs.vh"

  localparam S_IDLE = 2'd0, S_CHECK = 2'd1, S_RUN = 2'd2, S_STOP = 2'd3;

  wire [15:0] rows = instr_i[F_RECV_ROWS+:16];
  wire [15:0] prefix = instr_i[F_RECV_PREFIX+:16];
  wire [15:0] row_words = instr_i[F_RECV_ROW_WORDS+:16];
  wire [15:0] dst_base = instr_i[F_RECV_DST_BASE+:16];
  wire [15:0] dst_stride = instr_i[F_RECV_DST_STRIDE+:16];
  wire nothing = instr_i[F_FLAGS + FLAG_VOID];

  // The stream, registered on both sides.
  reg  open_q;
  wire in_valid, in_ready, in_last, in_room;
  wire [63:0] in_data;
  assign s_axis_tready = in_room && open_q;
  rowvit_skid_buffer #(.WIDTH(65)) u_in (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(s_axis_tvalid && open_q),
      .in_ready_o(in_room),
      .in_data_i({s_axis_tlast, s_axis_tdata}),
      .out_valid_o(in_valid),
      .out_ready_i(in_ready),
      .out_data_o({in_last, in_data})
  );

  // Position.
  reg [1:0] state_q;
  reg [ROWS-1:0] bank_q;
  reg [15:0] row_q, word_q, band_q, band_addr_q;
  // Dependencies, once met, stay so. They are known a cycle later; those of the next band are looked
  // up while this one runs.
  wire dep_ok;
  reg dep_q;

  rowvit_dep_check u_dep (
      .chain_i(instr_i[F_CHAIN+:N_ENGINE]),
      .dep_i(instr_i[F_DEPS+:16*N_ENGINE]),
      .done_i(done_i),
      .bands_i(bands_i),
      .band_i(band_q),
      .ok_o(dep_ok)
  );

  always @(posedge clk_i) dep_q <= dep_ok;

  // One word per step to the output, whose room is known from a register.
  wire out_valid, out_free, band_end_out, op_end_out;
  wire [ROWS-1:0] out_bank;
  wire out_ready = |(out_bank & tw_ready_i);
  wire out_taken = out_valid && out_ready;

  wire zero_row = row_q < prefix;
  wire row_end = word_q == row_words - 1'b1;
  wire op_end = row_end && row_q == rows - 1'b1;
  wire band_end = row_end && bank_q[ROWS-1];
  wire step = state_q == S_RUN && out_free && (zero_row || in_valid);
  wire bad = !zero_row && in_last != op_end;

  assign in_ready = state_q == S_RUN && out_free && !zero_row;

  always @(posedge clk_i) begin
    case (state_q)
      // The last operation's instruction is released when its last word is written.
      S_IDLE: if (instr_valid_i && !out_valid) state_q <= S_CHECK;
      S_CHECK: if (dep_q) state_q <= nothing ? S_IDLE : S_RUN;
      S_RUN: if (step) begin
                 if (bad) state_q <= S_STOP;
                 else if (op_end) state_q <= S_IDLE;
                 else if (band_end) state_q <= S_CHECK;
             end
      default: ;
    endcase
    // From the operation's first band to the end of its packet.
    open_q <= (state_q == S_CHECK && dep_q && !nothing && band_q == 16'd0)
        || (open_q && !(s_axis_tvalid && s_axis_tready && s_axis_tlast));
    if (!rst_ni) begin
      state_q <= S_IDLE;
      open_q <= 1'b0;
    end
  end

  always @(posedge clk_i) begin
    if (state_q == S_IDLE) begin
      row_q <= 0;
      word_q <= 0;
      band_q <= 0;
      bank_q <= 1;
      band_addr_q <= dst_base;
    end else if (state_q == S_CHECK) begin
      if (dep_q) band_q <= band_q + 1'b1;
    end else if (step) begin
      word_q <= row_end ? 16'd0 : word_q + 1'b1;
      if (row_end) begin
        row_q <= row_q + 1'b1;
        bank_q <= band_end ? 1 : bank_q << 1;
      end
      if (band_end) band_addr_q <= band_addr_q + dst_stride;
    end
  end

  rowvit_skid_buffer #(.WIDTH(82 + ROWS)) u_out (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(step && !bad),
      .in_ready_o(out_free),
      .in_data_i({bank_q, band_addr_q + word_q, zero_row ? 64'b0 : in_data, band_end, op_end}),
      .out_valid_o(out_valid),
      .out_ready_i(out_ready),
      .out_data_o({out_bank, tw_addr_o, tw_data_o, band_end_out, op_end_out})
  );

  // Progress counts what the memory has accepted.
  reg [15:0] done_q, bands_q;
  wire op_done = (out_taken && op_end_out) || (state_q == S_CHECK && dep_q && nothing);
  always @(posedge clk_i) begin
    if (op_done) begin
      done_q <= done_q + 1'b1;
      bands_q <= 0;
    end else if (out_taken && band_end_out) begin
      bands_q <= bands_q + 1'b1;
    end
    if (!rst_ni) begin
      done_q <= 0;
      bands_q <= 0;
    end
  end

  assign instr_ready_o = op_done;
  assign done_o = done_q;
  assign bands_o = bands_q;
  assign tw_valid_o = out_bank & {ROWS{out_valid}};
  assign word_o = in_valid && in_ready;
  assign starved_o = in_ready && !in_valid;
  reg error_q, short_q;
  always @(posedge clk_i) begin
    error_q <= step && bad;
    short_q <= in_last;
    if (!rst_ni) error_q <= 1'b0;
  end
  assign error_valid_o = error_q;
  assign error_code_o = short_q ? ERROR_STREAM_SHORT : ERROR_STREAM_LONG;
  assign error_info_o = {8'b0, instr_i[F_INDEX+:16]};
endmodule

`default_nettype wire
