// SPDX-License-Identifier: Apache-2.0
// recv: of the stream exactly the words of an operation are taken, none before it and none behind TLAST; its
// rows are written whole; errors are those of TLAST. Sizes are the solver's choice, up to 3 rows of 3 words.
`default_nettype none

module recv_proof (
    input wire        clk_i,
    input wire        rst_ni,
    input wire        instr_valid,
    input wire [1:0]  rows, prefix, row_words,
    input wire        nothing,
    input wire [63:0] tdata,
    input wire        tvalid, tlast,
    input wire [1:0]  tw_ready
);
  `include "rowvit_defs.vh"
  wire instr_ready, tready, word, starved, error_valid;
  wire [1:0] tw_valid;
  wire [15:0] done, bands, tw_addr;
  wire [63:0] tw_data;
  wire [7:0] error_code;
  wire [23:0] error_info;
  wire [511:0] instr = ({510'd0, rows} << F_RECV_ROWS) | ({510'd0, prefix} << F_RECV_PREFIX)
      | ({510'd0, row_words} << F_RECV_ROW_WORDS) | ({510'd0, row_words} << F_RECV_DST_STRIDE)
      | ({511'd0, nothing} << (F_FLAGS + FLAG_VOID));
  rowvit_recv #(.ROWS(2)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .instr_valid_i(instr_valid), .instr_ready_o(instr_ready), .instr_i(instr),
      .done_i(96'd0), .bands_i(96'd0), .done_o(done), .bands_o(bands),
      .s_axis_tdata(tdata), .s_axis_tvalid(tvalid), .s_axis_tready(tready), .s_axis_tlast(tlast),
      .tw_valid_o(tw_valid), .tw_ready_i(tw_ready), .tw_addr_o(tw_addr), .tw_data_o(tw_data),
      .word_o(word), .starved_o(starved),
      .error_valid_o(error_valid), .error_code_o(error_code), .error_info_o(error_info)
  );

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* assume (rst_ni == past);  // one reset, at the start
  always @* assume (rows > prefix && row_words != 0);
  // The dispatcher keeps an instruction, the source a word, until it is taken.
  reg held = 0, offered = 0;
  reg [7:0] op = 0;
  reg [64:0] offer = 0;
  always @(posedge clk_i) begin
    held <= rst_ni && instr_valid && !instr_ready;
    op <= {nothing, rows, prefix, row_words};
    offered <= tvalid && !tready;
    offer <= {tlast, tdata};
  end
  always @* begin
    if (held) assume (instr_valid && op == {nothing, rows, prefix, row_words});
    if (offered) assume (tvalid && offer == {tlast, tdata});
  end
  always @(posedge clk_i) if (past) begin
    if ($past(rst_ni && tw_valid != 0 && (tw_valid & tw_ready) == 0))
      assert ($stable(tw_valid) && $stable(tw_addr) && $stable(tw_data));
  end

  // What was taken and written for this operation.
  wire [4:0] due = (rows - prefix) * row_words, all = rows * row_words;
  reg  [4:0] taken = 0, written = 0;
  reg        ended = 0, failed = 0;  // TLAST was taken; an error was reported
  wire       take = tvalid && tready;
  wire       write = (tw_valid & tw_ready) != 0;
  always @(posedge clk_i) begin
    taken <= taken + take;
    written <= written + write;
    ended <= ended || (take && tlast);
    failed <= failed || error_valid;
    if (instr_ready || !rst_ni) begin
      taken <= 0;
      written <= 0;
      ended <= 0;
    end
    if (!rst_ni) failed <= 0;
  end
  always @* if (past) begin
    assert (tw_valid != 2'b11);
    if (tready) assert (instr_valid && !nothing && !ended);
    if (!failed && !error_valid) assert (taken <= due + 2);  // two words may wait behind a missing TLAST
    if (ended && !failed && !error_valid) assert (taken <= due || taken == due + 1 || taken == due + 2);
    if (instr_ready) begin
      assert (instr_valid);
      assert (!failed);
      if (nothing) assert (taken == 0 && written == 0 && !write);
      else assert (ended && taken == due && written + write == all);
    end
    if (error_valid) assert (!failed);
    if (failed) assert (!instr_ready);
  end
  always @(posedge clk_i) begin
    cover (past && $past(instr_ready && !nothing) && taken == 0 && done == 2);
    cover (error_valid && error_code == ERROR_STREAM_SHORT);
    cover (error_valid && error_code == ERROR_STREAM_LONG);
  end
endmodule
`default_nettype wire
