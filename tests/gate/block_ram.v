// SPDX-License-Identifier: Apache-2.0
// Behaviour of RAMB18E1 and RAMB36E1, whose models in Yosys' library have delays only: as much of it as
// Yosys uses (no output registers, no cascades, one clock, contents unknown at the start).
`default_nettype none
// Reads take place before the writes of the same edge.
module block_ram #(
    parameter AW = 14,  // address of a bit
    parameter READ_A = 0,
    parameter READ_B = 0,
    parameter WRITE_A = 0,
    parameter WRITE_B = 0,
    parameter KEEP_A = 0,  // a write leaves the output as it was
    parameter KEEP_B = 0,
    parameter NEW_A = 0,   // a write shows the new data
    parameter NEW_B = 0
) (
    input  wire          clk_a_i,
    input  wire          clk_b_i,
    input  wire          en_a_i,
    input  wire          en_b_i,
    input  wire [AW-1:0] addr_a_i,
    input  wire [AW-1:0] addr_b_i,
    input  wire [7:0]    we_a_i,
    input  wire [7:0]    we_b_i,
    input  wire [63:0]   data_a_i,
    input  wire [63:0]   data_b_i,
    input  wire [7:0]    parity_a_i,
    input  wire [7:0]    parity_b_i,
    output reg  [63:0]   data_a_o,
    output reg  [63:0]   data_b_o,
    output reg  [7:0]    parity_a_o,
    output reg  [7:0]    parity_b_o
);
  reg bits   [0:(1<<AW)-1];
  reg parity [0:(1<<(AW-3))-1];

  // Data bits of a port width: the ninth bit of a byte is in the parity array.
  function integer size;
    input integer width;
    size = width >= 9 ? width / 9 * 8 : width;
  endfunction

  task read_a;
    integer i, first;
    begin
      first = addr_a_i / size(READ_A) * size(READ_A);
      for (i = 0; i < size(READ_A); i = i + 1) data_a_o[i] <= bits[first+i];
      for (i = 0; i < READ_A / 9; i = i + 1) parity_a_o[i] <= parity[first/8+i];
    end
  endtask
  task read_b;
    integer i, first;
    begin
      first = addr_b_i / size(READ_B) * size(READ_B);
      for (i = 0; i < size(READ_B); i = i + 1) data_b_o[i] <= bits[first+i];
      for (i = 0; i < READ_B / 9; i = i + 1) parity_b_o[i] <= parity[first/8+i];
    end
  endtask

  integer k, at;
  always @(posedge clk_a_i)
    if (en_a_i) begin
      if (READ_A != 0 && !NEW_A && !(KEEP_A && |we_a_i)) read_a;
      if (WRITE_A != 0) begin
        #0 at = addr_a_i / size(WRITE_A) * size(WRITE_A);
        for (k = 0; k < size(WRITE_A); k = k + 1) if (we_a_i[k/8]) bits[at+k] = data_a_i[k];
        for (k = 0; k < WRITE_A / 9; k = k + 1) if (we_a_i[k]) parity[at/8+k] = parity_a_i[k];
      end
      if (READ_A != 0 && NEW_A) read_a;
    end
  integer m, to;
  always @(posedge clk_b_i)
    if (en_b_i) begin
      if (READ_B != 0 && !NEW_B && !(KEEP_B && |we_b_i)) read_b;
      if (WRITE_B != 0) begin
        #0 to = addr_b_i / size(WRITE_B) * size(WRITE_B);
        for (m = 0; m < size(WRITE_B); m = m + 1) if (we_b_i[m/8]) bits[to+m] = data_b_i[m];
        for (m = 0; m < WRITE_B / 9; m = m + 1) if (we_b_i[m]) parity[to/8+m] = parity_b_i[m];
      end
      if (READ_B != 0 && NEW_B) read_b;
    end
endmodule
module RAMB36E1 #(
    parameter RAM_MODE = "TDP",
    parameter RAM_EXTENSION_A = "NONE",  // this and the next seven are of no effect
    parameter RAM_EXTENSION_B = "NONE",
    parameter DOA_REG = 0,
    parameter DOB_REG = 0,
    parameter INIT_A = 0,
    parameter INIT_B = 0,
    parameter SRVAL_A = 0,
    parameter SRVAL_B = 0,
    parameter WRITE_MODE_A = "WRITE_FIRST",
    parameter WRITE_MODE_B = "WRITE_FIRST",
    parameter READ_WIDTH_A = 0,
    parameter READ_WIDTH_B = 0,
    parameter WRITE_WIDTH_A = 0,
    parameter WRITE_WIDTH_B = 0
) (
    input  wire [15:0] ADDRARDADDR,
    input  wire [15:0] ADDRBWRADDR,
    input  wire CLKARDCLK,
    input  wire CLKBWRCLK,
    input  wire ENARDEN,
    input  wire ENBWREN,
    input  wire REGCEAREGCE,
    input  wire REGCEB,
    input  wire RSTRAMARSTRAM,
    input  wire RSTRAMB,
    input  wire RSTREGARSTREG,
    input  wire RSTREGB,
    input  wire [31:0] DIADI,
    input  wire [31:0] DIBDI,
    input  wire [3:0] DIPADIP,
    input  wire [3:0] DIPBDIP,
    output wire [31:0] DOADO,
    output wire [31:0] DOBDO,
    output wire [3:0] DOPADOP,
    output wire [3:0] DOPBDOP,
    input  wire [3:0] WEA,
    input  wire [7:0] WEBWE
);
  // Simple dual port: read by A, write by B, each over the data pins of both.
  localparam SDP = RAM_MODE == "SDP";
  wire [63:0] data_a, data_b;
  wire [63:0] di = {DIBDI, DIADI};
  wire [7:0]  parity_a, parity_b;
  wire [7:0]  dip = {DIPBDIP, DIPADIP};
  assign DOADO = data_a[31:0];
  assign DOPADOP = parity_a[3:0];
  assign DOBDO = SDP ? data_a[63:32] : data_b[31:0];
  assign DOPBDOP = SDP ? parity_a[7:4] : parity_b[3:0];
  block_ram #(
      .AW(15), .READ_A(READ_WIDTH_A), .READ_B(READ_WIDTH_B), .WRITE_A(WRITE_WIDTH_A),
      .WRITE_B(WRITE_WIDTH_B), .KEEP_A(WRITE_MODE_A == "NO_CHANGE"),
      .KEEP_B(WRITE_MODE_B == "NO_CHANGE"), .NEW_A(WRITE_MODE_A == "WRITE_FIRST"),
      .NEW_B(WRITE_MODE_B == "WRITE_FIRST")
  ) u_ram (
      .clk_a_i(CLKARDCLK), .clk_b_i(CLKBWRCLK), .en_a_i(ENARDEN), .en_b_i(ENBWREN),
      .addr_a_i(ADDRARDADDR[14:0]), .addr_b_i(ADDRBWRADDR[14:0]),
      .we_a_i({4'd0, WEA}), .we_b_i(WEBWE),
      .data_a_i(di), .data_b_i(SDP ? di : {32'd0, DIBDI}),
      .parity_a_i(dip), .parity_b_i(SDP ? dip : {4'd0, DIPBDIP}),
      .data_a_o(data_a), .data_b_o(data_b), .parity_a_o(parity_a), .parity_b_o(parity_b)
  );
endmodule

module RAMB18E1 #(
    parameter RAM_MODE = "TDP",
    parameter RAM_EXTENSION_A = "NONE",  // this and the next seven are of no effect
    parameter RAM_EXTENSION_B = "NONE",
    parameter DOA_REG = 0,
    parameter DOB_REG = 0,
    parameter INIT_A = 0,
    parameter INIT_B = 0,
    parameter SRVAL_A = 0,
    parameter SRVAL_B = 0,
    parameter WRITE_MODE_A = "WRITE_FIRST",
    parameter WRITE_MODE_B = "WRITE_FIRST",
    parameter READ_WIDTH_A = 0,
    parameter READ_WIDTH_B = 0,
    parameter WRITE_WIDTH_A = 0,
    parameter WRITE_WIDTH_B = 0
) (
    input  wire [13:0] ADDRARDADDR,
    input  wire [13:0] ADDRBWRADDR,
    input  wire CLKARDCLK,
    input  wire CLKBWRCLK,
    input  wire ENARDEN,
    input  wire ENBWREN,
    input  wire REGCEAREGCE,
    input  wire REGCEB,
    input  wire RSTRAMARSTRAM,
    input  wire RSTRAMB,
    input  wire RSTREGARSTREG,
    input  wire RSTREGB,
    input  wire [15:0] DIADI,
    input  wire [15:0] DIBDI,
    input  wire [1:0] DIPADIP,
    input  wire [1:0] DIPBDIP,
    output wire [15:0] DOADO,
    output wire [15:0] DOBDO,
    output wire [1:0] DOPADOP,
    output wire [1:0] DOPBDOP,
    input  wire [1:0] WEA,
    input  wire [3:0] WEBWE
);
  // Simple dual port: read by A, write by B, each over the data pins of both.
  localparam SDP = RAM_MODE == "SDP";
  wire [63:0] data_a, data_b;
  wire [31:0] di = {DIBDI, DIADI};
  wire [7:0]  parity_a, parity_b;
  wire [3:0]  dip = {DIPBDIP, DIPADIP};
  assign DOADO = data_a[15:0];
  assign DOPADOP = parity_a[1:0];
  assign DOBDO = SDP ? data_a[31:16] : data_b[15:0];
  assign DOPBDOP = SDP ? parity_a[3:2] : parity_b[1:0];
  block_ram #(
      .AW(14), .READ_A(READ_WIDTH_A), .READ_B(READ_WIDTH_B), .WRITE_A(WRITE_WIDTH_A),
      .WRITE_B(WRITE_WIDTH_B), .KEEP_A(WRITE_MODE_A == "NO_CHANGE"),
      .KEEP_B(WRITE_MODE_B == "NO_CHANGE"), .NEW_A(WRITE_MODE_A == "WRITE_FIRST"),
      .NEW_B(WRITE_MODE_B == "WRITE_FIRST")
  ) u_ram (
      .clk_a_i(CLKARDCLK), .clk_b_i(CLKBWRCLK), .en_a_i(ENARDEN), .en_b_i(ENBWREN),
      .addr_a_i(ADDRARDADDR[13:0]), .addr_b_i(ADDRBWRADDR[13:0]),
      .we_a_i({6'd0, WEA}), .we_b_i({4'd0, WEBWE}),
      .data_a_i({32'd0, di}), .data_b_i(SDP ? {32'd0, di} : {48'd0, DIBDI}),
      .parity_a_i({4'd0, dip}), .parity_b_i(SDP ? {4'd0, dip} : {6'd0, DIPBDIP}),
      .data_a_o(data_a), .data_b_o(data_b), .parity_a_o(parity_a), .parity_b_o(parity_b)
  );
endmodule
`default_nettype wire
