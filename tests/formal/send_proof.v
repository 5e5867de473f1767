// SPDX-License-Identifier: Apache-2.0
// send: what leaves are the words of the sources, each source's in order and none twice, records whole; and
// AXI4-Stream's rule that an offered word stays. One source is followed, which is the solver's choice.
`default_nettype none

module send_proof (
    input wire         clk_i,
    input wire         rst_ni,
    input wire [2:0]   in_valid, in_eor, in_last,
    input wire [191:0] in_data,
    input wire         tready
);
  wire [2:0] in_ready;
  wire [63:0] tdata;
  wire [7:0] tkeep;
  wire tvalid, tlast, sent;
  rowvit_send #(.N(3)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .in_valid_i(in_valid), .in_ready_o(in_ready), .in_data_i(in_data),
      .in_eor_i(in_eor), .in_last_i(in_last),
      .m_axis_tdata(tdata), .m_axis_tkeep(tkeep), .m_axis_tvalid(tvalid), .m_axis_tready(tready),
      .m_axis_tlast(tlast), .sent_o(sent)
  );

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* assume (rst_ni == past);
  integer i;
  always @(posedge clk_i) if (past && $past(rst_ni)) begin
    if ($past(tvalid && !tready)) assert (tvalid && $stable(tdata) && $stable(tlast));
    for (i = 0; i < 3; i = i + 1)
      if ($past(in_valid[i] && !in_ready[i]))
        assume (in_valid[i] && $stable(in_data[64*i+:64]) && $stable(in_eor[i]) && $stable(in_last[i]));
  end

  // Bits 63:62 of a word name its source, bit 61 the end of its record, and the lowest four count the words of
  // the source that is followed.
  (* anyconst *) wire [1:0] followed;
  always @* assume (followed < 3);
  reg [3:0] given = 0, left = 0;
  always @* for (i = 0; i < 3; i = i + 1) begin
    assume (in_data[64*i+62+:2] == i && in_data[64*i+61] == in_eor[i]);
    if (followed == i) assume (in_data[64*i+:4] == given);
  end
  wire [2:0] take = in_valid & in_ready;
  reg        open = 0;   // within a record
  reg  [1:0] owner = 0;
  always @(posedge clk_i) begin
    given <= given + take[followed];
    if (sent) begin
      if (tdata[63:62] == followed) left <= left + 1'b1;
      owner <= tdata[63:62];
      open <= !tdata[61];
    end
    if (!rst_ni) begin
      given <= 0;
      left <= 0;
      open <= 0;
    end
  end
  always @* if (past) begin
    assert ((take & (take - 1'b1)) == 0);
    assert (sent == (tvalid && tready) && tkeep == 8'hff);
    if (tvalid && tdata[63:62] == followed) assert (tdata[3:0] == left);
    if (tvalid && open) assert (tdata[63:62] == owner);
  end
  // What induction needs: the two words inside, and whose record is open behind them.
  (* hierconn *) wire        \u_dut.u_out.skid_valid_q ;
  (* hierconn *) wire [64:0] \u_dut.u_out.skid_data_q ;
  (* hierconn *) wire [2:0]  \u_dut.owner_q ;
  wire        both = \u_dut.u_out.skid_valid_q ;
  wire [63:0] newest = both ? \u_dut.u_out.skid_data_q [63:0] : tdata;
  wire        in_out = tvalid && tdata[63:62] == followed, in_skid = both && newest[63:62] == followed;
  wire        behind = tvalid ? !newest[61] : open;
  wire [1:0]  whose = tvalid ? newest[63:62] : owner;
  always @* if (past) begin
    assert (!both || tvalid);
    assert (!tvalid || (tdata[63:62] != 3 && newest[63:62] != 3));
    assert (given == left + in_out + in_skid);
    if (in_skid) assert (newest[3:0] == left + in_out);
    if (both && !tdata[61]) assert (newest[63:62] == tdata[63:62]);
    assert (\u_dut.owner_q == (behind ? 3'd1 << whose : 3'd0));
    assert (!open || owner != 3);
  end
  always @(posedge clk_i) begin
    cover (left == 3 && !open && given == 4);
    cover (sent && open && in_valid[0] && owner == 2);
  end
endmodule
`default_nettype wire
