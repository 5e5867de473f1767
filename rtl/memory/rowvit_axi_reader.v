// SPDX-License-Identifier: Apache-2.0
// AXI4 read master for two clients: 0 the program, 1 the loads; words come back in request order.
// Bursts end at boundaries of 16 words: at most 16 beats, never across 4 KB. A burst is issued only when
// its words have a place in the client's FIFO, so R never waits and neither client can block the other: the
// FIFO refuses nothing (proof: tests/formal/axi_reader_proof.v).
// clear_i drops requests and words; bursts still in flight are swallowed before new ones are issued.
// Throughput: a burst every other cycle per client, one word per cycle. Latency: 5 cycles plus
// the memory's.
`default_nettype none

module rowvit_axi_reader #(
    // Bits of a word: 64 or 128.
    parameter WIDTH = 64,
    // Bursts in flight; a power of two.
    parameter OUTSTANDING = 8,
    // Words of client 0's FIFO; a power of two, at least 16.
    parameter DEPTH0 = 32,
    // Words of client 1's FIFO; a power of two, at least 16.
    parameter DEPTH1 = 128
) (
    input  wire        clk_i,
    input  wire        rst_ni,
    input  wire        clear_i,

    input  wire        req0_valid_i,
    output wire        req0_ready_o,
    input  wire [63:0] req0_addr_i,
    // Whole words, not 0.
    input  wire [31:0] req0_bytes_i,
    output wire        rsp0_valid_o,
    input  wire        rsp0_ready_i,
    output wire [WIDTH-1:0] rsp0_data_o,

    input  wire        req1_valid_i,
    output wire        req1_ready_o,
    input  wire [63:0] req1_addr_i,
    input  wire [31:0] req1_bytes_i,
    output wire        rsp1_valid_o,
    input  wire        rsp1_ready_i,
    output wire [WIDTH-1:0] rsp1_data_o,

    output wire [63:0] m_axi_araddr,
    output wire [7:0]  m_axi_arlen,
    output wire [2:0]  m_axi_arsize,
    output wire [1:0]  m_axi_arburst,
    output wire [3:0]  m_axi_arcache,
    output wire [2:0]  m_axi_arprot,
    output wire        m_axi_arvalid,
    input  wire        m_axi_arready,
    input  wire [WIDTH-1:0] m_axi_rdata,
    input  wire [1:0]  m_axi_rresp,
    input  wire        m_axi_rlast,
    input  wire        m_axi_rvalid,
    output wire        m_axi_rready,

    // Requests or bursts are pending.
    output wire        busy_o,
    // A word has arrived that was asked for since the last clear_i.
    output wire        beat_o,
    // A word arrived with SLVERR or DECERR.
    output wire        error_o
);
  `include "rowvit_defs.vh"

  localparam BW = $clog2(WIDTH / 8);  // bits of an address within a word
  localparam ADDR_W = 64 - BW, LEFT_W = 32 - BW;

  generate
    if (WIDTH != 64 && WIDTH != 128) begin : g_bad_width
      illegal_parameter_axi_reader_width_must_be_64_or_128 u_bad();
    end
    if (BURST_WORDS != 16) begin : g_bad_burst
      illegal_parameter_axi_reader_burst_words_must_be_16 u_bad();
    end
    if (DEPTH0 < BURST_WORDS || DEPTH1 < BURST_WORDS) begin : g_bad_depth
      illegal_parameter_axi_reader_depths_must_be_at_least_16 u_bad();
    end
  endgenerate

  // Requests and FIFOs, per client.
  // A request waits in a queue, so that who asks does not wait for the address channel in the same cycle.
  wire [1:0] ask_valid = {req1_valid_i, req0_valid_i};
  wire [1:0] rsp_ready = {rsp1_ready_i, rsp0_ready_i};
  wire [127:0] req_addr = {req1_addr_i, req0_addr_i};
  wire [63:0] req_bytes = {req1_bytes_i, req0_bytes_i};
  wire [1:0] ask_ready, rsp_valid, pending, fits, write;
  wire [2*WIDTH-1:0] rsp_data;
  wire [127:0] addr;
  wire [9:0] beats;

  wire [1:0] issue;
  reg flush_q;

  genvar c;
  generate
    for (c = 0; c < 2; c = c + 1) begin : g_client
      localparam DEPTH = c == 0 ? DEPTH0 : DEPTH1;
      localparam CW = $clog2(DEPTH) + 1;
      localparam [CW-1:0] ALL = DEPTH[CW-1:0];

      wire req_valid, req_ready;
      wire [ADDR_W+LEFT_W-1:0] req;
      rowvit_fifo #(.WIDTH(ADDR_W + LEFT_W), .DEPTH(2)) u_ask (
          .clk_i(clk_i),
          .rst_ni(rst_ni),
          .clear_i(clear_i),
          .in_valid_i(ask_valid[c]),
          .in_ready_o(ask_ready[c]),
          .in_data_i({req_addr[64*c+BW+:ADDR_W], req_bytes[32*c+BW+:LEFT_W]}),
          .out_valid_o(req_valid),
          .out_ready_i(req_ready),
          .out_data_o(req),
          .count_o()
      );

      reg valid_q;
      reg [ADDR_W-1:0] addr_q;
      reg [LEFT_W-1:0] left_q;
      // Places in the FIFO that no issued burst has claimed, known a cycle after a word leaves.
      reg [CW-1:0] free_q;
      reg pop_q;

      // A burst's length is known a cycle after its address.
      reg known_q, final_q;
      reg [4:0] length_q;
      wire [4:0] room = BURST_WORDS[4:0] - {1'b0, addr_q[3:0]};  // to the next boundary
      // Whether it fits is known with it where any burst fits, else a cycle later. Places get fewer only
      // with an issue, after which the length is unknown for a cycle.
      reg roomy_q, fits_q;
      wire final_burst = left_q <= {{(LEFT_W - 5){1'b0}}, room};
      wire pop = rsp_valid[c] && rsp_ready[c];

      assign addr[64*c+:64] = {addr_q, {BW{1'b0}}};
      assign beats[5*c+:5] = length_q;
      assign pending[c] = req_valid || valid_q;
      assign fits[c] = known_q && (roomy_q || fits_q);
      assign req_ready = !valid_q || (issue[c] && final_q);

      always @(posedge clk_i) begin
        valid_q <= req_valid || !req_ready;
        known_q <= valid_q && !issue[c];
        length_q <= final_burst ? left_q[4:0] : room;
        final_q <= final_burst;
        roomy_q <= free_q >= BURST_WORDS[CW-1:0];
        fits_q <= known_q && !issue[c] && free_q >= {{(CW-5){1'b0}}, length_q};
        if (!rst_ni || clear_i) begin
          valid_q <= 1'b0;
          known_q <= 1'b0;
        end
      end

      always @(posedge clk_i) begin
        if (req_ready || issue[c]) begin
          addr_q[ADDR_W-1:4] <= req_ready ? req[LEFT_W+4+:ADDR_W-4] : addr_q[ADDR_W-1:4] + 1'b1;
          addr_q[3:0] <= req[LEFT_W+:4] & {4{req_ready}};
          left_q <= req_ready ? req[LEFT_W-1:0] : left_q - {{(LEFT_W - 5){1'b0}}, length_q};
        end
      end

      always @(posedge clk_i) begin
        free_q <= free_q - (issue[c] ? {{(CW-5){1'b0}}, length_q} : {CW{1'b0}})
                              + {{(CW-1){1'b0}}, pop_q};
        pop_q <= pop;
        if (!rst_ni || clear_i) begin
          free_q <= ALL;
          pop_q <= 1'b0;
        end
      end

      rowvit_fifo #(.WIDTH(WIDTH), .DEPTH(DEPTH), .NEVER_REFUSED(1)) u_fifo (
          .clk_i(clk_i),
          .rst_ni(rst_ni),
          .clear_i(clear_i),
          .in_valid_i(write[c]),
          .in_ready_o(),
          .in_data_i(m_axi_rdata),
          .out_valid_o(rsp_valid[c]),
          .out_ready_i(rsp_ready[c]),
          .out_data_o(rsp_data[WIDTH*c+:WIDTH]),
          .count_o()
      );
    end
  endgenerate

  // Address channel. The program goes first: it needs little, and everything waits for it.
  reg ar_valid_q;
  reg [63:0] ar_addr_q;
  reg [3:0] ar_len_q;
  wire owner, owner_valid, track_ready;
  wire can_issue = (!ar_valid_q || m_axi_arready) && track_ready && !flush_q && !clear_i;

  assign issue[0] = can_issue && fits[0];
  assign issue[1] = can_issue && fits[1] && !fits[0];

  always @(posedge clk_i) begin
    ar_valid_q <= |issue || (ar_valid_q && !m_axi_arready);
    if (!rst_ni) ar_valid_q <= 1'b0;
  end

  always @(posedge clk_i) begin
    if (|issue) begin
      ar_addr_q <= issue[0] ? addr[63:0] : addr[127:64];
      // Modulo 16: a burst of 16 beats has length code 15.
      ar_len_q <= (issue[0] ? beats[3:0] : beats[8:5]) - 4'd1;
    end
  end

  // Whose burst comes back next. Survives clear_i: AXI bursts cannot be called back.
  rowvit_fifo #(.WIDTH(1), .DEPTH(OUTSTANDING)) u_track (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(|issue),
      .in_ready_o(track_ready),
      .in_data_i(issue[1]),
      .out_valid_o(owner_valid),
      .out_ready_i(m_axi_rvalid && m_axi_rlast),
      .out_data_o(owner),
      .count_o()
  );

  always @(posedge clk_i) begin
    flush_q <= owner_valid && (clear_i || flush_q);
    if (!rst_ni) flush_q <= 1'b0;
  end

  wire take = m_axi_rvalid && !flush_q;
  assign write = {take && owner, take && !owner};

  assign m_axi_araddr = ar_addr_q;
  assign m_axi_arlen = {4'b0, ar_len_q};
  assign m_axi_arsize = BW[2:0];
  assign m_axi_arburst = 2'b01;
  assign m_axi_arcache = 4'b0011;
  assign m_axi_arprot = 3'b000;
  assign m_axi_arvalid = ar_valid_q;
  assign m_axi_rready = 1'b1;

  assign {req1_ready_o, req0_ready_o} = ask_ready;
  assign {rsp1_valid_o, rsp0_valid_o} = rsp_valid;
  assign {rsp1_data_o, rsp0_data_o} = rsp_data;
  assign busy_o = owner_valid || |pending;
  assign beat_o = take;
  assign error_o = take && m_axi_rresp[1];
endmodule

`default_nettype wire
