// SPDX-License-Identifier: Apache-2.0
// Simple dual port memory: one write port, one registered read port. A read of the word that is
// being written returns the old word. Throughput 1 read and 1 write per cycle, latency 1.
// Resources: block RAM or LUT RAM, as size decides.
`default_nettype none
module rowvit_sdp_ram #(
    parameter WIDTH = 64,
    parameter DEPTH = 512,
    parameter AW    = 9  // bits of an address
) (
    input  wire             clk_i,
    input  wire             we_i,
    input  wire [AW-1:0]    waddr_i,
    input  wire [WIDTH-1:0] wdata_i,
    input  wire             re_i,
    input  wire [AW-1:0]    raddr_i,
    output reg  [WIDTH-1:0] rdata_o
);
  reg [WIDTH-1:0] mem [0:DEPTH-1];

  always @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= wdata_i;
    if (re_i) rdata_o <= mem[raddr_i];
  end
endmodule
`default_nettype wire
