// SPDX-License-Identifier: Apache-2.0
// Simple dual port memory of any even depth, in pieces whose depths are powers of two, one for each bit
// of DEPTH: Vivado rounds the depth of a 7 series block RAM up to the next power of two (AR 61995).
// Throughput 1 read and 1 write per cycle, latency 1, or 2 with output registers.
// Pieces below 256 words are in LUT RAM.
`default_nettype none
module rowvit_split_ram #(
    // Bits of a word.
    parameter WIDTH = 64,
    // Words; even.
    parameter DEPTH = 512,
    // Bits of an address: clog2(DEPTH).
    parameter AW = 9,
    // Of pieces of 256 words and more; see rowvit_sdp_ram.
    parameter RAM_STYLE = "auto",
    // 1: with an output register in each piece.
    parameter OUT_REG = 0
) (
    input  wire             clk_i,
    input  wire             we_i,
    input  wire [AW-1:0]    waddr_i,
    input  wire [WIDTH-1:0] wdata_i,
    input  wire             re_i,
    input  wire [AW-1:0]    raddr_i,
    output reg  [WIDTH-1:0] rdata_o
);
  wire [AW:0] waddr = {1'b0, waddr_i};
  wire [AW:0] raddr = {1'b0, raddr_i};
  wire [WIDTH*(AW+1)-1:0] words;  // at index b the word read from the piece of 2^b words, else 0

  genvar b;
  generate
    if (DEPTH % 2 != 0) begin : g_bad_depth
      illegal_parameter_split_ram_depth_must_be_even u_bad ();
    end
    for (b = 0; b <= AW; b = b + 1) begin : g_piece
      if (b > 0 && (DEPTH >> b) % 2 == 1) begin : g_ram
        localparam [AW-b:0] PIECE = DEPTH[AW:b] - 1'b1;  // the upper bits of all its addresses
        wire we = we_i && waddr[AW:b] == PIECE;
        wire re = re_i && raddr[AW:b] == PIECE;
        wire [WIDTH-1:0] word;
        reg  hit_q, hit2_q;
        wire hit = OUT_REG != 0 ? hit2_q : hit_q;
        always @(posedge clk_i) begin
          if (re_i) hit_q <= re;
          hit2_q <= hit_q;
        end
        if (b < 8) begin : g_small
          rowvit_sdp_ram #(
              .WIDTH(WIDTH), .DEPTH(1 << b), .AW(b), .RAM_STYLE("distributed"), .OUT_REG(OUT_REG)
          ) u_ram (
              .clk_i(clk_i), .we_i(we), .waddr_i(waddr[b-1:0]), .wdata_i(wdata_i),
              .re_i(re), .raddr_i(raddr[b-1:0]), .rdata_o(word)
          );
        end else begin : g_large
          rowvit_sdp_ram #(
              .WIDTH(WIDTH), .DEPTH(1 << b), .AW(b), .RAM_STYLE(RAM_STYLE), .OUT_REG(OUT_REG)
          ) u_ram (
              .clk_i(clk_i), .we_i(we), .waddr_i(waddr[b-1:0]), .wdata_i(wdata_i),
              .re_i(re), .raddr_i(raddr[b-1:0]), .rdata_o(word)
          );
        end
        assign words[WIDTH*b+:WIDTH] = word & {WIDTH{hit || DEPTH == 1 << b}};
      end else begin : g_none
        assign words[WIDTH*b+:WIDTH] = {WIDTH{1'b0}};
      end
    end
  endgenerate

  integer i;
  always @* begin
    rdata_o = {WIDTH{1'b0}};
    for (i = 0; i <= AW; i = i + 1) rdata_o = rdata_o | words[WIDTH*i+:WIDTH];
  end
endmodule
`default_nettype wire
