// SPDX-License-Identifier: Apache-2.0
// dispatch: it asks for nothing beyond the blob; every instruction goes, whole, once and in order, to the one
// queue of its opcode, as long as the header fits; after one error there is silence until it is cleared.
`default_nettype none

module dispatch_proof (
    input wire         clk_i,
    input wire         rst_ni,
    input wire         clear, start,
    input wire [63:0]  base,
    input wire [31:0]  program_at, length,
    input wire [15:0]  passes,
    input wire         req_ready, rsp_valid,
    input wire [127:0] rsp_data,
    input wire [4:0]   q_ready
);
  `include "rowvit_defs.vh"
  localparam [31:0] HASH = 32'h12345678;
  wire req_valid, rsp_ready, busy, error;
  wire [63:0] req_addr;
  wire [31:0] req_bytes;
  wire [4:0]  q_valid;
  wire [511:0] instr0, instr1, instr2, instr3, instr4;
  wire [7:0]  error_code;
  wire [23:0] error_info;
  rowvit_dispatch #(.CONFIG_HASH(HASH), .PORT_BITS(128)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear), .start_i(start),
      .base_i(base), .program_i(program_at), .length_i(length), .passes_i(passes),
      .req_valid_o(req_valid), .req_ready_i(req_ready), .req_addr_o(req_addr), .req_bytes_o(req_bytes),
      .rsp_valid_i(rsp_valid), .rsp_ready_o(rsp_ready), .rsp_data_i(rsp_data),
      .q0_valid_o(q_valid[0]), .q0_ready_i(q_ready[0]), .q0_instr_o(instr0),
      .q1_valid_o(q_valid[1]), .q1_ready_i(q_ready[1]), .q1_instr_o(instr1),
      .q2_valid_o(q_valid[2]), .q2_ready_i(q_ready[2]), .q2_instr_o(instr2),
      .q3_valid_o(q_valid[3]), .q3_ready_i(q_ready[3]), .q3_instr_o(instr3),
      .q4_valid_o(q_valid[4]), .q4_ready_i(q_ready[4]), .q4_instr_o(instr4),
      .busy_o(busy), .error_valid_o(error), .error_code_o(error_code), .error_info_o(error_info)
  );
  // What enters the queues, which are fifo's proof.
  (* hierconn *) wire [4:0]   \u_dut.push ;
  (* hierconn *) wire         \u_dut.consume ;
  (* hierconn *) wire [2:0]   \u_dut.state_q ;
  (* hierconn *) wire [511:0] \u_dut.instr_q ;
  (* hierconn *) wire         \u_dut.instr_valid_q ;
  (* hierconn *) wire [4:0]   \u_dut.target_q ;
  (* hierconn *) wire         \u_dut.end_q ;
  (* hierconn *) wire         \u_dut.header_ok_q ;
  (* hierconn *) wire [2:0]   \u_dut.inflight_q ;
  (* hierconn *) wire [2:0]   \u_dut.word_q ;
  (* hierconn *) wire [25:0]  \u_dut.fetch_left_q ;
  (* hierconn *) wire [63:0]  \u_dut.fetch_addr_q ;
  wire [4:0] push = \u_dut.push ;
  wire consume = \u_dut.consume ;
  wire [511:0] instr = \u_dut.instr_q ;
  localparam IDLE = 0, RESTART = 1, HEADER = 2, RUN = 3, STOP = 5;
  wire [2:0] state = \u_dut.state_q ;
  wire running = state == HEADER || state == RUN;

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* assume (rst_ni == past);  // one reset, at the start

  // The registers keep the settings while it is busy, and start it only when it is not.
  reg         held = 0;
  reg [143:0] settings = 0;
  always @(posedge clk_i) begin
    held <= rst_ni && (busy || start);
    settings <= {base, program_at, length, passes};
  end
  always @* begin
    if (held) assume (settings == {base, program_at, length, passes});
    if (busy) assume (!start);
    assume (base[63:40] == 0);  // a blob does not wrap around the address space
  end

  // The reader gives what was asked for; a start or a clear makes it forget.
  reg [5:0] owed = 0;  // words
  wire request = req_valid && req_ready, word = rsp_valid && rsp_ready;
  always @* if (rsp_valid) assume (owed != 0);
  always @(posedge clk_i)
    if (!rst_ni || start || clear) owed <= 0;
    else owed <= owed + (request ? 6'd4 : 6'd0) - word;

  // The instruction that is due, from its own words.
  reg [511:0] due = 0;
  reg [1:0]   words = 0;
  reg         waits = 0;
  always @(posedge clk_i) begin
    if (word) begin
      due[128*words+:128] <= rsp_data;
      words <= words + 1'b1;
      if (words == 2'd3 && running) waits <= 1'b1;
    end
    if (consume) waits <= 1'b0;
    if (!rst_ni || start || clear) begin
      words <= 0;
      waits <= 0;
    end
  end
  wire [3:0] opcode = due[3:0];
  wire [4:0] queue = opcode == OP_LOAD ? 5'd1 : opcode == OP_MATMUL || opcode == OP_ATTN ? 5'd2
      : opcode == OP_NORM ? 5'd4 : opcode == OP_SELECT ? 5'd8 : opcode == OP_RECV ? 5'd16 : 5'd0;
  wire fits = opcode == OP_HEADER && due[F_HEADER_CONFIG_HASH+:32] == HASH
      && due[F_HEADER_ABI+:16] == ABI_VERSION;

  reg silent = 0;  // since an error
  always @(posedge clk_i) begin
    if (error) silent <= 1'b1;
    if (!rst_ni || start || clear) silent <= 1'b0;
  end

  wire [63:0] blob_end = base + length;
  always @* if (past) begin
    // What the induction needs.
    assert (owed == 4 * \u_dut.inflight_q - words);
    assert (\u_dut.inflight_q <= FETCHES);
    assert (\u_dut.word_q == words);
    if (owed == 0) assert (words == 0);
    assert (waits == \u_dut.instr_valid_q );
    if (waits || words != 0) assert (due[127:0] == instr[127:0]);
    if (waits || words > 1) assert (due[255:128] == instr[255:128]);
    if (waits || words > 2) assert (due[383:256] == instr[383:256]);
    if (waits) assert (due == instr);
    if (waits || words > 1) begin
      assert (\u_dut.target_q == queue);
      assert (\u_dut.end_q == (opcode == OP_END));
    end
    if (waits || words > 2) assert (\u_dut.header_ok_q == fits);
    if (consume) assert (waits && running);
    assert (state <= STOP);
    if (silent) assert (state == STOP);
    if (state == STOP) assert (!consume);
    if (running && program_at < length)
      assert (\u_dut.fetch_addr_q + {\u_dut.fetch_left_q , 6'd0} <= blob_end
              && \u_dut.fetch_addr_q >= base + program_at && \u_dut.fetch_addr_q <= blob_end);
    if (running && program_at >= length) assert (\u_dut.fetch_left_q == 0);

    // Nothing beyond the blob.
    if (req_valid) begin
      assert (req_bytes == 64);
      assert (req_addr >= base + program_at && req_addr + req_bytes <= blob_end);
    end
    // Each instruction once, to its one queue.
    if (push != 0) assert (consume && push == queue && state == RUN);
    if (consume && state == RUN) assert (waits && (opcode == OP_END ? push == 0 : push == queue && push != 0));
    if (consume && state == HEADER) assert (fits);
    // One error, then silence.
    if (error) assert (running && !silent && !consume);
    if (silent) assert (!req_valid && push == 0 && !error);
    if (!busy) assert (!req_valid && push == 0 && !error);
  end

  // An offered instruction stays until it is taken.
  wire [2559:0] instrs = {instr4, instr3, instr2, instr1, instr0};
  genvar q;
  generate
    for (q = 0; q < 5; q = q + 1) begin : g_stays
      reg         offered = 0;
      reg [511:0] what = 0;
      always @(posedge clk_i) begin
        offered <= rst_ni && !start && !clear && q_valid[q] && !q_ready[q];
        what <= instrs[512*q+:512];
      end
      always @* if (past && offered) assert (q_valid[q] && what == instrs[512*q+:512]);
    end
  endgenerate

  reg ran = 0;  // a header was taken since the start
  always @(posedge clk_i) begin
    ran <= (ran || (consume && state == HEADER)) && !start && rst_ni;
    if (past) begin
      cover (q_valid[0] && state == RUN);
      cover (ran && state == IDLE && passes == 1);
      cover (error && error_code == ERROR_BAD_HASH);
      cover (error && error_code == ERROR_BAD_OPCODE && error_info == 1);
      cover (error && error_code == ERROR_ADDRESS_RANGE);
    end
  end
endmodule
`default_nettype wire
