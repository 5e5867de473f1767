// SPDX-License-Identifier: Apache-2.0
// Drain, stages 1 to 10: a lane's accumulators out of the shadows, and requantised, of all rows and groups.
// Throughput 1 lane per cycle. Latency 10 from lane_i to y_o.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_drain_requant #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Lane tiles whose biases and multipliers are held.
    parameter PARAM_SLOTS = 4
) (
    input  wire                         clk_i,
    // stage 0: the lane, and the tile that it is of
    input  wire [$clog2(LANES)-1:0]     lane_i,
    input  wire [`O_ALL]                op_i,
    input  wire                         odd_band_i,
    // stage 1: the lane of the cycle before is drained, and reads its parameters
    input  wire                         read_i,
    // shadows; read in the next cycle
    input  wire [26*LANES*ROWS*GROUPS-1:0] shadow_i,
    // biases and multipliers
    input  wire                         pw_valid_i,
    input  wire [`PW_ALL]               pw_i,
    // reciprocals of P V
    output wire                         recip_band_o,
    input  wire [17*ROWS*GROUPS-1:0]    recip_r_i,
    input  wire [5*ROWS*GROUPS-1:0]     recip_n_i,
    output wire [16*ROWS*GROUPS-1:0]    y_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  localparam LW = $clog2(LANES);
  localparam PAW = $clog2(PARAM_SLOTS * LANES);

  // ---------------------------------------------------------------- stages 1 to 3: accumulators, parameters
  wire [3:0]      kind = op_i[`O_KIND];
  wire [7:0]      pslot = op_i[`O_PSLOT];
  reg  [3:1]      own_q;  // neither S nor O: bias and multiplier are the lane's own
  reg  [2:1]      output_q;  // O: multiplier and shift come from the softmax
  reg  [2:1]      band_q, odd_q;
  reg  [6*2-1:0]  shift_q;
  reg  [16*2-1:0] mult_q;
  reg  [6*N-1:0]  shift3_q;
  reg  [17*N-1:0] mult3_q;
  reg  [26*N-1:0] acc3_q;
  wire [42*GROUPS-1:0] param3;
  assign recip_band_o = band_q[2];
  always @(posedge clk_i) begin
    own_q    <= {own_q[2:1], kind != KIND_O[3:0] && kind != KIND_S[3:0]};
    output_q <= {output_q[1], kind == KIND_O[3:0]};
    band_q   <= {band_q[1], odd_band_i};
    odd_q    <= {odd_q[1], lane_i[0]};
    shift_q  <= {shift_q[5:0], op_i[`O_SHIFT]};
    mult_q   <= {mult_q[15:0], op_i[`O_MULT]};
  end

  wire [7:0]  pw_group = pw_i[`PW_GROUP], pw_slot = pw_i[`PW_SLOT], pw_lane = pw_i[`PW_LANE];
  wire [47:0] pw_data = pw_i[`PW_DATA];
  genvar g, i;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_param
      // 36 bits are half a block RAM, the other six go into LUTs
      wire mine = pw_valid_i && pw_group == g;
      wire [PAW-1:0] waddr = {pw_slot[PAW-LW-1:0], pw_lane[LW-1:0]};
      // Per group, as many memories hang on it. Tools merge equal registers unless told not to: Vivado by
      // the register's attribute, Yosys by that of the block.
      (* keep = "true" *) reg [PAW-1:0] raddr1_q;
      (* keep = "true" *) always @(posedge clk_i) raddr1_q <= {pslot[PAW-LW-1:0], lane_i};
      rowvit_sdp_ram #(
          .WIDTH(36),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW),
          .OUT_REG(1)
      ) u_low (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i({pw_data[41:32], pw_data[25:0]}),
          .re_i(read_i), .raddr_i(raddr1_q), .rdata_o(param3[42*g+:36])
      );
      rowvit_sdp_ram #(
          .WIDTH(6),
          .DEPTH(PARAM_SLOTS * LANES),
          .AW   (PAW),
          .RAM_STYLE("distributed"),
          .OUT_REG(1)
      ) u_high (
          .clk_i(clk_i),
          .we_i(mine), .waddr_i(waddr), .wdata_i(pw_data[47:42]),
          .re_i(read_i), .raddr_i(raddr1_q), .rdata_o(param3[42*g+36+:6])
      );
    end
    for (i = 0; i < N; i = i + 1) begin : g_shadow
      // Pairs on multiples of 64 bits, which multiplexers select without a shifter.
      wire [32*LANES-1:0] mine;
      for (g = 0; g < LANES / 2; g = g + 1) begin : g_pair
        assign mine[64*g+:64] = {12'd0, shadow_i[52*(i*LANES/2+g)+:52]};
      end
      // The number of the lane's pair: two copies, as each drives a multiplexer of half the bits.
      (* keep = "true" *) reg [LW-2:0] low1_q, high1_q;
      reg  [51:0] pair_q;  // shadow bits, see rowvit_mac_pair.v
      wire [8:0]  wraps = pair_q[51:43] - {8'd0, pair_q[16]};
      (* keep = "true" *) always @(posedge clk_i) low1_q <= lane_i[LW-1:1];
      (* keep = "true" *) always @(posedge clk_i) high1_q <= lane_i[LW-1:1];
      always @(posedge clk_i) begin
        pair_q[25:0]  <= mine[64*low1_q+:26];
        pair_q[51:26] <= mine[64*high1_q+26+:26];
        acc3_q[26*i+:26] <= odd_q[2] ? pair_q[42:17] - {{17{wraps[8]}}, wraps} : {wraps, pair_q[16:0]};
        shift3_q[6*i+:6] <= shift_q[11:6] + (output_q[2] ? {1'b0, recip_n_i[5*i+:5]} : 6'd0);
        mult3_q[17*i+:17] <= output_q[2] ? recip_r_i[17*i+:17] : {1'b0, mult_q[31:16]};
      end
    end
  endgenerate

  // ---------------------------------------------------------------- stages 4 to 10: requantisation
  generate
    for (i = 0; i < N; i = i + 1) begin : g_requant
      wire [41:0] prm = param3[42*(i%GROUPS)+:42];
      rowvit_requant u_requant (
          .clk_i  (clk_i),
          .acc_i  (acc3_q[26*i+:26]),
          .bias_i (own_q[3] ? prm[25:0] : 26'd0),
          .mult_i (own_q[3] ? {1'b0, prm[41:26]} : mult3_q[17*i+:17]),
          .shift_i(shift3_q[6*i+:6]),
          .y_o    (y_o[16*i+:16])
      );
    end
  endgenerate
endmodule
`default_nettype wire
