// SPDX-License-Identifier: Apache-2.0
// Token memory: one bank of 64-bit words per row of a band. Each bank has one write port, shared by
// N_WRITE clients in fixed priority (client 0 is never refused), and one read port, shared by fetchers in
// rotation: those of its row, and those of group 0 of all rows, which may read any bank (gathered rows).
// Throughput 1 read and 1 write per bank and cycle; read data one cycle after the grant. A read sees a
// write granted two cycles before it; what waits for a write to be counted passes more registers than that.
`default_nettype none
module rowvit_token_memory #(
    // Rows of a band.
    parameter ROWS = 2,
    // Words per bank.
    parameter DEPTH = 2048,
    // Fetchers: all groups of row 0 first.
    parameter N_READ = 2,
    // Write clients.
    parameter N_WRITE = 4,
    // Bits of a row's number.
    parameter BANK_W = 1,
    // Of the RAM: "auto" leaves it to the size; "block", "distributed" (LUT RAM), "ultra".
    parameter RAM_STYLE = "auto"
) (
    input  wire                        clk_i,
    input  wire                        rst_ni,
    // write client w, bank r at index w*ROWS + r
    input  wire [N_WRITE*ROWS-1:0]     w_valid_i,
    output reg  [N_WRITE*ROWS-1:0]     w_ready_o,
    input  wire [16*N_WRITE*ROWS-1:0]  w_addr_i,
    input  wire [64*N_WRITE*ROWS-1:0]  w_data_i,
    input  wire [N_READ-1:0]           r_valid_i,
    output wire [N_READ-1:0]           r_ready_o,
    input  wire [BANK_W*N_READ-1:0]    r_bank_i,
    input  wire [16*N_READ-1:0]        r_addr_i,
    output reg  [N_READ-1:0]           r_dvalid_o,
    output wire [64*N_READ-1:0]        r_data_o
);
  localparam AW = $clog2(DEPTH);
  localparam GROUPS = N_READ / ROWS;

  generate
    if (DEPTH < 2 || DEPTH > 65536) begin : g_bad_depth
      illegal_parameter_token_memory_depth_must_be_from_2_to_65536 u_bad ();
    end
  endgenerate

  wire [N_READ*ROWS-1:0] grant_all;
  wire [64*ROWS-1:0]     bank_data;

  genvar r, f;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_bank
      // write port
      reg          we;
      reg  [15:0]  waddr;
      reg  [63:0]  wdata;
      integer w;
      always @* begin
        we    = 1'b0;
        waddr = w_addr_i[16*r+:16];
        wdata = w_data_i[64*r+:64];
        for (w = 0; w < N_WRITE; w = w + 1) begin
          w_ready_o[w*ROWS+r] = !we;
          if (!we && w_valid_i[w*ROWS+r]) begin
            we    = 1'b1;
            waddr = w_addr_i[16*(w*ROWS+r)+:16];
            wdata = w_data_i[64*(w*ROWS+r)+:64];
          end
        end
      end

      reg          we_q;
      reg  [AW-1:0] waddr_q;
      reg  [63:0]  wdata_q;
      always @(posedge clk_i) begin
        we_q    <= we;
        waddr_q <= waddr[AW-1:0];
        wdata_q <= wdata;
        if (!rst_ni) we_q <= 1'b0;
      end

      // read port: rotating priority; `after_q` masks the requesters after the last one served
      wire [N_READ-1:0] want;
      reg  [N_READ-1:0] after_q;
      for (f = 0; f < N_READ; f = f + 1) begin : g_want
        assign want[f] = r_valid_i[f]
            && (f % GROUPS == 0 ? r_bank_i[BANK_W*f+:BANK_W] == r : f / GROUPS == r);
      end
      wire [N_READ-1:0] hi    = want & after_q;
      wire [N_READ-1:0] grant, after;
      assign grant[0] = want[0] && (after_q[0] || !(|hi));
      assign after[0] = 1'b0;
      for (f = 1; f < N_READ; f = f + 1) begin : g_grant
        assign grant[f] = |hi ? hi[f] && !(|hi[f-1:0]) : want[f] && !(|want[f-1:0]);
        assign after[f] = |grant[f-1:0];
      end
      assign grant_all[N_READ*r+:N_READ] = grant;
      reg [15:0] raddr;
      integer k;
      always @* begin
        raddr = 16'd0;
        for (k = 0; k < N_READ; k = k + 1) raddr = raddr | (r_addr_i[16*k+:16] & {16{grant[k]}});
      end
      always @(posedge clk_i) begin
        if (|want) after_q <= after;
        if (!rst_ni) after_q <= {N_READ{1'b0}};
      end

      rowvit_split_ram #(
          .WIDTH(64),
          .DEPTH(DEPTH),
          .AW   (AW),
          .RAM_STYLE(RAM_STYLE)
      ) u_ram (
          .clk_i  (clk_i),
          .we_i   (we_q),
          .waddr_i(waddr_q),
          .wdata_i(wdata_q),
          .re_i   (|want),
          .raddr_i(raddr[AW-1:0]),
          .rdata_o(bank_data[64*r+:64])
      );
    end

    for (f = 0; f < N_READ; f = f + 1) begin : g_port
      reg hit;
      integer b;
      always @* begin
        hit = 1'b0;
        for (b = 0; b < ROWS; b = b + 1) hit = hit | grant_all[N_READ*b+f];
      end
      assign r_ready_o[f] = hit;
      if (f % GROUPS == 0) begin : g_any
        reg [BANK_W-1:0] bank_q;
        always @(posedge clk_i) bank_q <= r_bank_i[BANK_W*f+:BANK_W];
        assign r_data_o[64*f+:64] = bank_data[64*bank_q+:64];
      end else begin : g_own
        assign r_data_o[64*f+:64] = bank_data[64*(f/GROUPS)+:64];
      end
    end
  endgenerate

  always @(posedge clk_i) begin
    r_dvalid_o <= r_ready_o;
    if (!rst_ni) r_dvalid_o <= {N_READ{1'b0}};
  end
endmodule
`default_nettype wire
