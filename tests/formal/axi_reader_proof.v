// SPDX-License-Identifier: Apache-2.0
// axi_reader against any memory that answers in order: AXI4's rules for AR, bursts of at most 16 beats within
// 4 KB, no more than OUTSTANDING of them, no burst without a place for its words; each client gets its own
// words in order, and after a clear none of those that were asked for before.
`default_nettype none

module axi_reader_proof (
    input wire        clk_i,
    input wire        rst_ni,
    input wire        clear,
    input wire [1:0]  req_valid, rsp_ready,
    input wire [63:0] addr0, addr1,
    input wire [31:0] bytes0, bytes1,
    input wire        arready, rvalid,
    input wire [63:0] rdata,
    input wire [1:0]  rresp
);
  localparam OUTSTANDING = 2, DEPTH = 16;
  wire [1:0] req_ready, rsp_valid;
  wire [63:0] data0, data1, araddr;
  wire [7:0] arlen;
  wire [2:0] arsize, arprot;
  wire [1:0] arburst;
  wire [3:0] arcache;
  wire arvalid, rready, busy, beat, error, rlast;
  rowvit_axi_reader #(.OUTSTANDING(OUTSTANDING), .DEPTH0(DEPTH), .DEPTH1(DEPTH)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear),
      .req0_valid_i(req_valid[0]), .req0_ready_o(req_ready[0]), .req0_addr_i(addr0), .req0_bytes_i(bytes0),
      .rsp0_valid_o(rsp_valid[0]), .rsp0_ready_i(rsp_ready[0]), .rsp0_data_o(data0),
      .req1_valid_i(req_valid[1]), .req1_ready_o(req_ready[1]), .req1_addr_i(addr1), .req1_bytes_i(bytes1),
      .rsp1_valid_o(rsp_valid[1]), .rsp1_ready_i(rsp_ready[1]), .rsp1_data_o(data1),
      .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(arsize), .m_axi_arburst(arburst),
      .m_axi_arcache(arcache), .m_axi_arprot(arprot), .m_axi_arvalid(arvalid), .m_axi_arready(arready),
      .m_axi_rdata(rdata), .m_axi_rresp(rresp), .m_axi_rlast(rlast), .m_axi_rvalid(rvalid),
      .m_axi_rready(rready), .busy_o(busy), .beat_o(beat), .error_o(error)
  );

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* begin
    assume (rst_ni == past);
    assume (bytes0[2:0] == 0 && bytes0 != 0 && bytes0 < 256 && addr0[2:0] == 0);
    assume (bytes1[2:0] == 0 && bytes1 != 0 && bytes1 < 256 && addr1[2:0] == 0);
    // Client 1 asks in the upper half of the addresses.
    assume (addr0[40:39] == 2'b00 && addr1[40:39] == 2'b10);
  end

  // ---------------------------------------------------------------- address channel
  reg         ar_open = 0;
  reg  [71:0] ar = 0;
  always @(posedge clk_i) begin
    ar_open <= rst_ni && arvalid && !arready;
    ar <= {araddr, arlen};
  end
  wire [12:0] bytes_end = {1'b0, araddr[11:0]} + ({5'd0, arlen} + 13'd1 << 3);
  always @* if (past) begin
    if (ar_open) assert (arvalid && ar == {araddr, arlen});
    assert (arburst == 2'b01 && arsize == 3'd3 && rready);
    if (arvalid) assert (arlen < 16 && araddr[2:0] == 0 && bytes_end <= 13'd4096);
  end

  // ---------------------------------------------------------------- memory: bursts come back in order
  reg  [3:0] len0 = 0, len1 = 0;   // of the bursts in flight, the next to come back first
  reg        old0 = 0, old1 = 0;   // asked for before a clear
  reg        whose0 = 0, whose1 = 0;
  reg  [1:0] flying = 0;
  reg  [3:0] beats = 0;            // of the one that comes back
  assign rlast = beats == len0;
  wire issued = arvalid && arready, back = rvalid && rlast;
  reg  stale = 0;                  // the address that is offered is from before a clear
  always @* assume (!rvalid || flying != 0);
  always @(posedge clk_i) begin
    flying <= flying + issued - back;
    if (rvalid) beats <= rlast ? 4'd0 : beats + 4'd1;
    if (back) {len0, whose0, old0} <= {len1, whose1, old1};
    if (issued) begin
      if (flying - back == 0) {len0, whose0, old0} <= {arlen[3:0], araddr[40], stale};
      else {len1, whose1, old1} <= {arlen[3:0], araddr[40], stale};
    end
    stale <= stale && !issued;
    if (clear) begin
      old0 <= 1;
      old1 <= 1;
      stale <= arvalid && !issued;
    end
    if (!rst_ni) {flying, beats, stale, old0, old1} <= 0;
  end
  always @* if (past) assert (flying + (arvalid && !issued) <= OUTSTANDING);

  // ---------------------------------------------------------------- words
  // Bit 63: asked for before a clear; bit 62: whose; bits 4:0 count the new words of client 1.
  reg [4:0] came = 0, given = 0;
  wire      fresh = rvalid && !old0 && !clear;
  always @* begin
    assume (rdata[63] == old0 && rdata[62] == whose0);
    if (whose0) assume (rdata[4:0] == came);
  end
  always @(posedge clk_i) begin
    if (fresh && whose0) came <= came + 1'b1;
    if (rsp_valid[1] && rsp_ready[1]) given <= given + 1'b1;
    if (clear || !rst_ni) begin
      came <= 0;
      given <= 0;
    end
  end
  always @* if (past && !clear) begin
    if (rsp_valid[0]) assert (data0[63:62] == 2'b00);
    if (rsp_valid[1]) assert (data1[63:62] == 2'b01 && data1[4:0] == given);
    assert (came - given <= DEPTH);
    assert (beat == (rvalid && !old0));
    if (error) assert (rvalid && rresp[1] && !old0);
  end

  // ---------------------------------------------------------------- places, of client 1's FIFO
  // Every one is free, or promised to a word of a burst that was issued, or holds a word, or has just lost it.
  (* hierconn *) wire [4:0] \u_dut.g_client[1].free_q ;
  (* hierconn *) wire       \u_dut.g_client[1].pop_q ;
  (* hierconn *) wire [4:0] \u_dut.g_client[1].u_fifo.count_q ;
  reg  [6:0] promised = 0;
  wire [6:0] promises = promised + (arvalid && !ar_open && araddr[40] ? arlen + 7'd1 : 7'd0);
  wire [6:0] places = \u_dut.g_client[1].free_q + promises + \u_dut.g_client[1].u_fifo.count_q
      + \u_dut.g_client[1].pop_q ;
  always @(posedge clk_i) promised <= clear || !rst_ni ? 7'd0 : promises - (fresh && whose0);
  always @* if (past) assert (places == DEPTH);

  reg cleared = 0;
  always @(posedge clk_i) begin
    cleared <= cleared || (clear && flying == 2);
    cover (given == 3 && came == 5);
    cover (cleared && given == 1);
    cover (issued && bytes_end == 13'd4096 && arlen == 3);
  end
endmodule
`default_nettype wire
