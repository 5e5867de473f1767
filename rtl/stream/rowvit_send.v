// SPDX-License-Identifier: Apache-2.0
// Merges records from N sources into the output stream; a record is never interleaved with another.
// The lowest-numbered source that offers a word wins the stream until its end-of-record word.
// Throughput: one word per cycle, also from record to record. Latency: 1 cycle.
`default_nettype none

module rowvit_send #(
    // Record sources.
    parameter N = 3
) (
    input  wire            clk_i,
    input  wire            rst_ni,

    input  wire [N-1:0]    in_valid_i,
    output wire [N-1:0]    in_ready_o,
    input  wire [64*N-1:0] in_data_i,
    // Last word of a record.
    input  wire [N-1:0]    in_eor_i,
    // TLAST.
    input  wire [N-1:0]    in_last_i,

    output wire [63:0]     m_axis_tdata,
    output wire [7:0]      m_axis_tkeep,
    output wire            m_axis_tvalid,
    input  wire            m_axis_tready,
    output wire            m_axis_tlast,

    // A word has left.
    output wire            sent_o
);
  reg [N-1:0] owner_q;

  // Isolates the lowest bit of the requests.
  wire [N-1:0] first = in_valid_i & (~in_valid_i + 1'b1);
  wire [N-1:0] grant = |owner_q ? owner_q : first;
  wire ready;
  wire valid = |(grant & in_valid_i);
  wire eor = |(grant & in_eor_i);
  wire last = |(grant & in_last_i);

  reg [63:0] data;
  integer i;
  always @* begin
    data = 64'b0;
    for (i = 0; i < N; i = i + 1) data = data | ({64{grant[i]}} & in_data_i[64*i+:64]);
  end

  assign in_ready_o = grant & {N{ready}};

  always @(posedge clk_i) begin
    if (valid && ready) owner_q <= eor ? {N{1'b0}} : grant;
    if (!rst_ni) owner_q <= 0;
  end

  rowvit_skid_buffer #(.WIDTH(65)) u_out (
      .clk_i(clk_i),
      .rst_ni(rst_ni),
      .clear_i(1'b0),
      .in_valid_i(valid),
      .in_ready_o(ready),
      .in_data_i({last, data}),
      .out_valid_o(m_axis_tvalid),
      .out_ready_i(m_axis_tready),
      .out_data_o({m_axis_tlast, m_axis_tdata})
  );

  assign m_axis_tkeep = 8'hFF;
  assign sent_o = m_axis_tvalid && m_axis_tready;
endmodule

`default_nettype wire
