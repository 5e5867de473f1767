// SPDX-License-Identifier: Apache-2.0
// LayerNorm's parameters, a gain and a bias per channel: single port memories, so that the pipeline stalls
// in a cycle that writes.
// Throughput: a parameter of every group per cycle. Latency: 3 cycles from g_number_i to gain_o, 4 from
// b_number_i to bias_o; a write happens 3 cycles after it comes.
`default_nettype none

module rowvit_norm_params #(
    // Lane groups.
    parameter GROUPS = 3,
    // Parameter sets held at once.
    parameter SLOTS = 2,
    // Parameters of a set.
    parameter SLOT_DEPTH = 256
) (
    input  wire                                clk_i,
    input  wire                                move_i,      // every stage moves in the next cycle
    // Parameters {g, b}, as in rowvit_norm_engine.
    input  wire                                nw_valid_i,
    input  wire [7:0]                          nw_group_i,
    input  wire [7:0]                          nw_slot_i,
    input  wire [15:0]                         nw_index_i,
    input  wire [47:0]                         nw_data_i,
    output wire                                stall_o,     // two cycles later one is written
    // The first parameter of a slot.
    input  wire [7:0]                          slot_i,
    output wire [$clog2(SLOTS*SLOT_DEPTH)-1:0] base_o,
    // Which parameters the next cycle's stages read; half of what the output shift takes away.
    input  wire [$clog2(SLOTS*SLOT_DEPTH)-1:0] g_number_i,
    input  wire [$clog2(SLOTS*SLOT_DEPTH)-1:0] b_number_i,
    input  wire [30:0]                         half_i,
    output wire [16*GROUPS-1:0]                gain_o,
    output wire [33*GROUPS-1:0]                bias_o       // and half
);
  localparam DEPTH = SLOTS * SLOT_DEPTH;
  localparam PW = $clog2(DEPTH);

  // First parameter of a slot.
  function [PW-1:0] slot_base;
    input [7:0] number;
    integer s;
    begin
      slot_base = 0;
      for (s = 1; s < SLOTS; s = s + 1) begin
        if (number == s[7:0]) slot_base = s[PW-1:0] * SLOT_DEPTH[PW-1:0];
      end
    end
  endfunction
  assign base_o = slot_base(slot_i);

  localparam NW = 1 + 8 + PW + 48;
  reg  [NW-1:0] nw0_q, nw1_q;
  reg  [56:0]   nw2_q;
  wire          nw_valid;
  wire [7:0]    nw_group;
  wire [47:0]   nw_data;
  assign {nw_valid, nw_group, nw_data} = nw2_q;
  assign stall_o = nw0_q[NW-1];
  always @(posedge clk_i) begin
    nw0_q <= {nw_valid_i, nw_group_i, slot_base(nw_slot_i) + nw_index_i[PW-1:0], nw_data_i};
    nw1_q <= nw0_q;
    nw2_q <= {nw1_q[NW-1-:9], nw1_q[47:0]};
  end

  // Addresses of the next cycle; after a write, again that of the stage.
  wire nw_next = nw1_q[NW-1];
  wire [PW-1:0] g_addr_d = nw_next ? nw1_q[48+:PW] : g_number_i;
  wire [PW-1:0] b_addr_d = nw_next ? nw1_q[48+:PW] : b_number_i;
  genvar g, r;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_param
      // Copies of the enable, as in rowvit_norm_lane, and of the addresses.
      (* keep = "true" *) reg en_group_q;
      (* keep = "true" *) always @(posedge clk_i) en_group_q <= move_i;
      wire        write = nw_valid && nw_group == g;
      wire [47:0] param;
      for (r = 0; r < 3; r = r + 1) begin : g_half  // gain, and the halves of the bias
        (* keep = "true" *) reg [PW-1:0] param_addr_q;
        (* keep = "true" *) always @(posedge clk_i) param_addr_q <= r == 2 ? g_addr_d : b_addr_d;
        rowvit_lut_ram #(.WIDTH(16), .DEPTH(DEPTH)) u_ram (
            .clk_i(clk_i), .en_i(en_group_q), .we_i(write), .addr_i(param_addr_q),
            .wdata_i(nw_data[16*r+:16]), .rdata_o(param[16*r+:16])
        );
      end
      wire [31:0] b_read = param[31:0];
      reg  [32:0] bias_q;
      assign gain_o[16*g+:16] = param[47:32];
      always @(posedge clk_i) if (en_group_q) bias_q <= {b_read[31], b_read} + {2'd0, half_i};
      assign bias_o[33*g+:33] = bias_q;
    end
  endgenerate
endmodule

`default_nettype wire
