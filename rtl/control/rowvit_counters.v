// SPDX-License-Identifier: Apache-2.0
// The performance counters: each adds its increment in every cycle of en_i, start clears them all.
// Throughput: every cycle. Latency: 1 cycle.
`default_nettype none

module rowvit_counters #(
    // Counters.
    parameter N = 20
) (
    input  wire            clk_i,
    input  wire            rst_ni,
    input  wire [N-1:0]    en_i,
    // 16 bits per counter, in the order of isa.COUNTERS.
    input  wire [16*N-1:0] inc_i,
    // 32 bits per counter.
    output wire [32*N-1:0] count_o
);
  genvar i;
  generate
    for (i = 0; i < N; i = i + 1) begin : g_counter
      reg [31:0] count_q;
      always @(posedge clk_i) begin
        if (en_i[i]) count_q <= count_q + {16'b0, inc_i[16*i+:16]};
        if (!rst_ni) count_q <= 0;
      end
      assign count_o[32*i+:32] = count_q;
    end
  endgenerate
endmodule

`default_nettype wire
