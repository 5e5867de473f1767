// SPDX-License-Identifier: Apache-2.0
// TOKENS: LayerNorm's 16-bit values as the words of a record. A step of the lanes has a value of every row and
// group, which take whole words together. They wait in a FIFO; the lanes stop before it is full.
// Throughput: a word per cycle. Latency: 1 cycle.
`default_nettype none

module rowvit_norm_tokens #(
    // Rows of a part.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    // The values of a step, and which rows and groups exist; the others count as zero.
    input  wire                      value_i,
    input  wire [16*ROWS*GROUPS-1:0] y_i,
    input  wire [GROUPS-1:0]         groups_i,
    input  wire [ROWS-1:0]           rows_i,
    input  wire                      band_end_i,  // they are a band's last,
    input  wire                      op_end_i,    // and the operation's
    // At most four more steps have values; again before the FIFO is empty.
    output reg                       full_o,
    // Words of the record, behind its header.
    output wire                      valid_o,
    input  wire                      ready_i,
    output wire [63:0]               data_o,
    output wire                      band_end_o,  // the last word of a band,
    output wire                      op_end_o     // and of the operation
);
  localparam N = ROWS * GROUPS;
  localparam WORDS = (N + 3) / 4;
  localparam DEPTH = 32;  // of a LUT RAM
  localparam WIDTH = 16 * N + GROUPS + ROWS + 2;

  wire [WIDTH-1:0]       head;
  wire [$clog2(DEPTH):0] count;
  wire                   step_end;
  rowvit_fifo #(
      .WIDTH(WIDTH), .DEPTH(DEPTH), .NEVER_REFUSED(1)
  ) u_fifo (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(value_i), .in_ready_o(), .in_data_i({op_end_i, band_end_i, rows_i, groups_i, y_i}),
      .out_valid_o(valid_o), .out_ready_i(ready_i && step_end), .out_data_o(head), .count_o(count)
  );
  always @(posedge clk_i) begin
    full_o <= full_o ? count > DEPTH[5:0] / 6'd4 : count > DEPTH[5:0] / 6'd2;
    if (!rst_ni) full_o <= 1'b0;
  end

  // ---------------------------------------------------------------- words of a step
  reg [7:0] word_q;
  assign step_end = word_q == WORDS[7:0] - 8'd1;
  always @(posedge clk_i) begin
    if (valid_o && ready_i) word_q <= step_end ? 8'd0 : word_q + 8'd1;
    if (!rst_ni) word_q <= 8'd0;
  end

  wire [GROUPS-1:0]   groups = head[16*N+:GROUPS];
  wire [ROWS-1:0]     rows = head[16*N+GROUPS+:ROWS];
  wire [64*WORDS-1:0] values;
  genvar i;
  generate
    for (i = 0; i < 4 * WORDS; i = i + 1) begin : g_value
      if (i < N) begin : g_used
        assign values[16*i+:16] = head[16*i+:16] & {16{rows[i / GROUPS] && groups[i % GROUPS]}};
      end else begin : g_none
        assign values[16*i+:16] = 16'd0;
      end
    end
  endgenerate
  reg [63:0] data;
  integer w;
  always @* begin
    data = 64'd0;
    for (w = 0; w < WORDS; w = w + 1) data = data | (values[64*w+:64] & {64{word_q == w[7:0]}});
  end
  assign data_o = data;
  assign band_end_o = step_end && head[WIDTH-2];
  assign op_end_o = step_end && head[WIDTH-1];
endmodule

`default_nettype wire
