// SPDX-License-Identifier: Apache-2.0
// issue: only scalars that are there fire, and none behind a fetcher's last one of the tile; dense tiles in lock
// step; no last scalar, which writes shadows, before they are released; each tile is captured once, each operation
// ends once, tiles without anything pass without a scalar. The three waits are counted as docs/isa.md says.
`default_nettype none
`include "rowvit_buses.vh"

module issue_proof #(
    parameter ROWS = 2,
    parameter GROUPS = 2
) (
    input wire                     clk_i,
    input wire                     rst_ni,
    input wire                     tile_valid,
    input wire [`T_ISSUE]          tile,
    input wire [ROWS*GROUPS-1:0]   x_valid, x_last,
    input wire [9*ROWS*GROUPS-1:0] x_data,
    input wire [11*ROWS*GROUPS-1:0] x_idx,
    input wire [GROUPS-1:0]        wr_valid,
    input wire                     release_shadows
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  wire tile_ready, captured, op_done, fire_any, wait_data, wait_drain, wait_steal;
  wire [N-1:0] x_ready;
  rowvit_issue #(.ROWS(ROWS), .GROUPS(GROUPS), .LANES(2), .WEIGHT_DEPTH(2), .AW(1)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .tile_valid_i(tile_valid), .tile_ready_o(tile_ready), .tile_i(tile),
      .x_valid_i(x_valid), .x_ready_o(x_ready), .x_data_i(x_data), .x_idx_i(x_idx), .x_last_i(x_last),
      .wr_valid_i(wr_valid), .wr_line_i({GROUPS{1'b0}}), .wr_be_i({2*GROUPS{1'b1}}), .wr_data_i(16'd0),
      .wr_clear_i({64*GROUPS{1'b0}}),
      .captured_o(captured), .release_i(release_shadows), .shadow_o(),
      .op_done_o(op_done), .fire_any_o(fire_any), .fires_o(), .ffn2_nonzeros_o(), .pv_nonzeros_o(),
      .wait_data_o(wait_data), .wait_drain_o(wait_drain), .wait_steal_o(wait_steal)
  );
  // The queue of tiles is fifo's proof: what comes out of it, and when it is taken.
  (* hierconn *) wire            \u_dut.load ;
  (* hierconn *) wire            \u_dut.in_valid ;
  (* hierconn *) wire            \u_dut.in_null ;
  (* hierconn *) wire [`T_ISSUE] \u_dut.head ;
  (* hierconn *) wire            \u_dut.in_shared ;
  (* hierconn *) wire [7:0]      \u_dut.in_groups ;
  (* hierconn *) wire [ROWS-1:0] \u_dut.in_rows ;
  (* hierconn *) wire [N-1:0]    \u_dut.done_q ;
  (* hierconn *) wire [N-1:0]    \u_dut.own_q ;
  (* hierconn *) wire            \u_dut.tile_q ;
  (* hierconn *) wire            \u_dut.null_q ;
  (* hierconn *) wire            \u_dut.op_last_q ;
  (* hierconn *) wire            \u_dut.sparse_q ;
  (* hierconn *) wire            \u_dut.shared_q ;
  (* hierconn *) wire [N-1:0]    \u_dut.needed_q ;
  (* hierconn *) wire            \u_dut.inflight_q ;
  (* hierconn *) wire [CAPTURE-4:0] \u_dut.end_q ;
  wire take = \u_dut.load ;

  reg past = 1'b0;
  always @(posedge clk_i) past <= 1'b1;
  always @* assume (rst_ni == past);  // one reset, at the start
  always @* if (tile_valid) assume (tile[`T_NULL] || (tile[`T_ROWS] != 0 && tile[`T_GROUPS] != 0));
  // A tile that enters the queue as said comes out so.
  always @* if (\u_dut.in_valid ) assume (\u_dut.in_null || (\u_dut.in_rows != 0 && \u_dut.in_groups != 0));

  // Our own view of the tile under way: whose scalars it takes, and whose last one has fired.
  reg         running = 0, nothing = 0, op_last = 0, sparse = 0;
  reg         shared = 0;
  reg [N-1:0] own = 0, needed = 0, ended = 0;
  wire [N-1:0] ends = ended | (x_ready & x_last);
  wire complete = running && (own & ~ends) == 0;
  integer i;
  always @(posedge clk_i) begin
    ended <= complete ? {N{1'b0}} : ends;
    if (take) begin
      running <= \u_dut.in_valid && !\u_dut.in_null ;
      nothing <= \u_dut.in_valid && \u_dut.in_null ;
      op_last <= \u_dut.head [`T_OP_LAST];
      sparse <= \u_dut.head [`T_SPARSE];
      shared <= \u_dut.in_shared ;
      for (i = 0; i < N; i = i + 1) begin
        needed[i] <= \u_dut.in_valid && !\u_dut.in_null && \u_dut.in_rows [i/GROUPS]
            && i % GROUPS < \u_dut.in_groups ;
        own[i] <= \u_dut.in_valid && !\u_dut.in_null && \u_dut.in_rows [i/GROUPS]
            && (\u_dut.in_shared ? i % GROUPS == 0 : i % GROUPS < \u_dut.in_groups );
      end
    end
    if (!rst_ni) {running, nothing, own, ended} <= 0;
  end

  // Shadows hold a tile from its end until they are released.
  reg full = 0;
  reg [CAPTURE-3:0] captures = 0;  // due
  reg op_ends = 0;
  reg waits_data = 0, waits_drain = 0, waits_steal = 0;
  wire [N-1:0] open = own & ~ended;
  reg stolen;  // a write takes a port that a scalar of an odd row needs
  integer j, k;
  always @* begin
    stolen = 1'b0;
    for (j = 0; j < N; j = j + 1)
      for (k = 0; k < GROUPS; k = k + 1)
        if (sparse && (j / GROUPS) % 2 == 1 && open[j] && x_valid[j] && wr_valid[k]
            && (shared ? needed[j/GROUPS*GROUPS+k] : k == j % GROUPS)) stolen = 1'b1;
  end
  always @(posedge clk_i) begin
    if (release_shadows) full <= 1'b0;
    if (complete) full <= 1'b1;
    captures <= {captures[CAPTURE-4:0], complete};
    op_ends <= op_last && (nothing || complete);
    waits_data <= x_ready == 0 && (open & ~x_valid) != 0;
    waits_drain <= x_ready == 0 && (open & x_valid & x_last) != 0 && full && !release_shadows;
    waits_steal <= stolen;
    if (!rst_ni) {full, captures, op_ends, waits_data, waits_drain, waits_steal} <= 0;
  end

  always @* if (past) begin
    // What the induction needs.
    assert (running == \u_dut.tile_q && nothing == \u_dut.null_q && own == \u_dut.own_q );
    if (running || nothing) assert (op_last == \u_dut.op_last_q && sparse == \u_dut.sparse_q );
    if (running) assert (shared == \u_dut.shared_q && \u_dut.needed_q == needed);
    assert (ended == \u_dut.done_q && full == \u_dut.inflight_q );
    assert (captures[CAPTURE-4:0] == \u_dut.end_q );
    assert (!(running && nothing));
    if (running) assert (own != 0);
    if (!running) assert (own == 0);
    assert ((ended & ~own) == 0);

    assert ((x_ready & ~(x_valid & own & ~ended)) == 0);
    assert (take == (!running || complete));
    if (full && !release_shadows) assert ((x_ready & x_last) == 0);
    assert (captured == captures[CAPTURE-3]);
    assert (op_done == op_ends);
    assert (wait_data == waits_data && wait_drain == waits_drain && wait_steal == waits_steal);
  end
  genvar r, g;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_group
      for (r = 1; r < ROWS; r = r + 1) begin : g_row
        always @* if (past && running && !sparse && own[g] && own[r*GROUPS+g])
          assert (x_ready[r*GROUPS+g] == x_ready[g]);
      end
    end
  endgenerate

  always @(posedge clk_i) if (past) begin
    cover (captured && sparse && running);
    cover (complete && full && release_shadows && own == {N{1'b1}});
    cover (op_done && nothing);
    cover (wait_drain && !sparse);
    cover (wait_steal);
  end
endmodule
`default_nettype wire
