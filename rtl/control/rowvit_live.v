// SPDX-License-Identifier: Apache-2.0
// Live tokens of every image of a pass. They are set when its embedding begins and by its selections, never
// both in a cycle: between the two lies a projection that waits for the selection.
// Throughput: a write and N reads per cycle. Latency: a write is read in the next cycle; reads 0.
`default_nettype none
module rowvit_live #(
    // Readers.
    parameter N = 4,
    // Tokens of an image, at most.
    parameter MAX_TOKENS = 320
) (
    input  wire            clk_i,
    input  wire            rst_ni,
    input  wire            set_valid_i,
    input  wire [3:0]      set_image_i,
    input  wire [15:0]     set_rows_i,
    input  wire            kept_valid_i,
    input  wire [3:0]      kept_image_i,
    input  wire [15:0]     kept_rows_i,
    input  wire [4*N-1:0]  image_i,
    output wire [16*N-1:0] live_o,
    output reg  [15:0]     last_o        // what was written last
);
  `include "rowvit_defs.vh"
  localparam W = $clog2(MAX_TOKENS + 1);
  wire         write = set_valid_i || kept_valid_i;
  wire [3:0]   image = set_valid_i ? set_image_i : kept_image_i;
  wire [W-1:0] rows = set_valid_i ? set_rows_i[W-1:0] : kept_rows_i[W-1:0];
  genvar n;
  generate
    for (n = 0; n < N; n = n + 1) begin : g_read
      (* ram_style = "distributed" *) reg [W-1:0] mem_q [0:MAX_IMAGES-1];
      always @(posedge clk_i) if (write) mem_q[image] <= rows;
      assign live_o[16*n+:16] = {{(16 - W) {1'b0}}, mem_q[image_i[4*n+:4]]};
    end
  endgenerate
  always @(posedge clk_i) begin
    if (write) last_o <= {{(16 - W) {1'b0}}, rows};
    if (!rst_ni) last_o <= 16'd0;
  end
endmodule
`default_nettype wire
