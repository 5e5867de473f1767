// SPDX-License-Identifier: Apache-2.0
// dep_check: met if every engine has completed the operations that are waited for, or, with its chain bit, all
// but the last, and of that one more bands than the waiting one's number. Counts are within 2^15 of each other.
`default_nettype none

module dep_check_proof (
    input wire [5:0]  chain,
    input wire [95:0] dep, done, bands,
    input wire [15:0] band
);
  wire ok;
  rowvit_dep_check u_dut (
      .chain_i(chain), .dep_i(dep), .done_i(done), .bands_i(bands), .band_i(band), .ok_o(ok)
  );
  reg met;
  integer e;
  reg signed [15:0] missing;
  always @* begin
    met = 1;
    for (e = 0; e < 6; e = e + 1) begin
      missing = dep[16*e+:16] - done[16*e+:16];
      if (missing > 1) met = 0;
      if (missing == 1 && !(chain[e] && bands[16*e+:16] > band)) met = 0;
      if (missing == -16'sd32768) met = 0;  // neither ahead nor behind
    end
    assert (ok == met);
    cover (ok && chain == 6'b101010 && bands != 0);
  end
endmodule
`default_nettype wire
