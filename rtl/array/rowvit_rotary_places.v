// SPDX-License-Identifier: Apache-2.0
// Places of live rows, a bank for each row of a band: written by loads, and by the selection, which moves those
// of the rows that stay, never past one that is still to be read; the compiler keeps the two apart in time. Read
// by the drain, a band at a time.
// Throughput: all ports every cycle. Latency 1 of the drain's; the selection's read is written 2 cycles later.
`default_nettype none
`include "rowvit_buses.vh"
module rowvit_rotary_places #(
    // Rows of a band.
    parameter ROWS = 2,
    // Bits of a row's number.
    parameter BANK_W = 1,
    // Rows that are held.
    parameter DEPTH = 512
) (
    input  wire               clk_i,
    input  wire               load_i,
    input  wire [15:0]        load_row_i,
    input  wire [9:0]         load_data_i,
    input  wire               move_i,   // the row that was read two cycles before goes to its place
    input  wire [`MV_ALL]     move_row_i,
    input  wire               read_i,
    input  wire [10:0]        band_i,
    output reg  [10*ROWS-1:0] data_o
);
  localparam AW = $clog2(DEPTH) - BANK_W;
  wire [15:0]        from = move_row_i[`MV_FROM], to = move_row_i[`MV_TO];
  reg  [10*ROWS-1:0] read_q;
  reg  [BANK_W-1:0]  bank_q;
  reg  [9:0]         moved_q;
  wire [15:0]        row = load_i ? load_row_i : to;
  always @(posedge clk_i) begin
    bank_q  <= from[BANK_W-1:0];
    moved_q <= read_q[10*bank_q+:10];
  end
  genvar r;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_bank
      (* ram_style = "distributed" *) reg [9:0] mem_q [0:(1<<AW)-1];
      always @(posedge clk_i) begin
        if ((load_i || move_i) && row[BANK_W-1:0] == r) mem_q[row[BANK_W+:AW]] <= load_i ? load_data_i
                                                                                         : moved_q;
        if (read_i) data_o[10*r+:10] <= mem_q[band_i[AW-1:0]];
        read_q[10*r+:10] <= mem_q[from[BANK_W+:AW]];
      end
    end
  endgenerate

`ifdef ROWVIT_ASSERT
  generate
    if (1) begin : g_assert
      always @(posedge clk_i) begin : never_refused
        if (load_i && move_i) $fatal(1, "a word is refused");
      end
    end
  endgenerate
`endif
endmodule
`default_nettype wire
