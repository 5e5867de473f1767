// SPDX-License-Identifier: Apache-2.0
// norm_tokens: no step is refused as long as at most four come behind full_o; a step has all of its words, in
// order, with zeros for what does not exist; an offered word stays. That the FIFO keeps the order of steps is
// proved of the FIFO (queue_proof.v).
`default_nettype none

module norm_tokens_proof (
    input wire        clk_i,
    input wire        rst_ni,
    input wire        value, band_end, op_end, ready,
    input wire [95:0] y,
    input wire [2:0]  groups,
    input wire [1:0]  rows
);
  wire full, valid, out_band_end, out_op_end;
  wire [63:0] data;
  rowvit_norm_tokens #(.ROWS(2), .GROUPS(3)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .value_i(value), .y_i(y), .groups_i(groups), .rows_i(rows),
      .band_end_i(band_end), .op_end_i(op_end), .full_o(full),
      .valid_o(valid), .ready_i(ready), .data_o(data), .band_end_o(out_band_end), .op_end_o(out_op_end)
  );

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* assume (rst_ni == past);

  // Steps since full_o came.
  reg [2:0] late = 0;
  always @* assume (!(value && full && late == 4));
  always @(posedge clk_i) late <= rst_ni && full ? late + value : 3'd0;

  (* hierconn *) wire [5:0]   \u_dut.count ;
  (* hierconn *) wire [102:0] \u_dut.head ;
  (* hierconn *) wire [7:0]   \u_dut.word_q ;
  (* hierconn *) wire [4:0]   \u_dut.u_fifo.write_q , \u_dut.u_fifo.read_q ;
  wire [102:0] head = \u_dut.head ;
  wire [7:0]   word = \u_dut.word_q ;
  reg  [95:0]  there;
  integer r, g;
  always @* begin
    there = 96'd0;
    for (r = 0; r < 2; r = r + 1)
      for (g = 0; g < 3; g = g + 1)
        if (head[96+g] && head[99+r]) there[16*(3*r+g)+:16] = head[16*(3*r+g)+:16];
  end

  // Steps that have come and gone, and words of the one that is going.
  reg [7:0] given = 0, gone = 0;
  reg       second = 0;
  wire [7:0] inside = given - gone;
  always @(posedge clk_i) begin
    given <= given + value;
    if (valid && ready) begin
      gone <= gone + second;
      second <= !second;
    end
    if (!rst_ni) begin
      given <= 0;
      gone <= 0;
      second <= 0;
    end
    if (past && $past(rst_ni && valid && !ready))
      assert (valid && $stable(data) && $stable(out_band_end) && $stable(out_op_end));
  end
  always @* if (past) begin
    assert (late <= 4);
    assert (\u_dut.count <= (full ? 6'd18 + late : 6'd17));
    assert (inside == \u_dut.count );
    assert (\u_dut.u_fifo.write_q == \u_dut.u_fifo.read_q + \u_dut.count [4:0]);
    assert (word == second);
    assert (valid == (\u_dut.count != 0));
    if (!valid) assert (!second);
    if (valid) begin
      assert (data == (second ? {32'd0, there[95:64]} : there[63:0]));
      assert (out_band_end == (second && head[101]) && out_op_end == (second && head[102]));
    end
  end
  always @(posedge clk_i) begin
    cover (valid && ready && out_op_end && !out_band_end);
    cover (full && late == 4);
  end
endmodule
`default_nettype wire
