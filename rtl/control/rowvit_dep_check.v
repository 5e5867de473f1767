// SPDX-License-Identifier: Apache-2.0
// Are the dependencies of an instruction met? Combinational.
// Operation counts wrap at 16 bits; they are compared as signed differences.
`default_nettype none

module rowvit_dep_check (
    // Per engine: the dependency is per band, not per operation.
    input  wire [5:0]  chain_i,
    // Per engine (16 bits each): operations that must be complete, counted from start.
    input  wire [95:0] dep_i,
    // Per engine: operations completed, and bands completed in the operation after those.
    input  wire [95:0] done_i,
    input  wire [95:0] bands_i,
    // The band that waits.
    input  wire [15:0] band_i,
    output wire        ok_o
);
  wire [5:0] ok;

  genvar e;
  generate
    for (e = 0; e < 6; e = e + 1) begin : g_engine
      wire [15:0] ahead = done_i[16*e+:16] - dep_i[16*e+:16];
      assign ok[e] = !ahead[15]
          || (chain_i[e] && (&ahead) && bands_i[16*e+:16] > band_i);
    end
  endgenerate

  assign ok_o = &ok;
endmodule

`default_nettype wire
