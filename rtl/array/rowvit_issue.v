// SPDX-License-Identifier: Apache-2.0
// Issue stage of the array: pairs scalars from the fetchers with weight lines and fires the
// clusters. Dense tiles run all rows in lock step on one read port; in sparse tiles each row (and, in
// attention, each group) walks its own list on its own port, or the rows of a port walk the union of
// theirs. A tile ends when all of its clusters have fired their last scalar; the next one follows
// without a gap.
// Throughput 1 scalar per cluster and cycle. Latency from fire to cluster input 3.
`default_nettype none
module rowvit_issue #(
    parameter ROWS   = 2,
    parameter GROUPS = 3,
    parameter LANES  = 64,
    parameter WEIGHT_DEPTH = 1024,  // lines
    parameter AW     = 10,  // weight line address
    parameter USE_DSP = 0  // 1: DSP48E1 primitives, 0: their behavioural twin
) (
    input  wire                          clk_i,
    input  wire                          rst_ni,
    // tile descriptors, in order
    input  wire                          tile_valid_i,
    output wire                          tile_ready_o,
    input  wire                          tile_null_i,    // nothing to do: an operation without bands
    input  wire                          tile_op_last_i,
    input  wire                          tile_shared_i,  // all groups take group 0's scalars
    input  wire                          tile_sparse_i,
    input  wire                          tile_pv_i,      // counts as P V, else (if sparse) as FFN2
    input  wire [15:0]                   tile_wbase_i,
    input  wire [7:0]                    tile_groups_i,
    input  wire [ROWS-1:0]               tile_rows_i,    // rows that exist
    // fetchers, index r*GROUPS + g
    input  wire [ROWS*GROUPS-1:0]        x_valid_i,
    output wire [ROWS*GROUPS-1:0]        x_ready_o,
    input  wire [9*ROWS*GROUPS-1:0]      x_data_i,
    input  wire [11*ROWS*GROUPS-1:0]     x_idx_i,
    input  wire [ROWS*GROUPS-1:0]        x_last_i,
    // weight writes, always taken; of the one line, each group leaves out its bits wr_clear_i
    input  wire [GROUPS-1:0]             wr_valid_i,
    input  wire [AW*GROUPS-1:0]          wr_line_i,
    input  wire [LANES*GROUPS-1:0]       wr_be_i,
    input  wire [8*LANES-1:0]            wr_data_i,
    input  wire [64*GROUPS-1:0]          wr_clear_i,     // same for every eight lanes
    // drain
    output reg                           captured_o,     // all shadows of a tile are complete
    input  wire                          release_i,      // the shadows may be overwritten soon
    output wire [26*LANES*ROWS*GROUPS-1:0] shadow_o,
    // progress and counters
    output reg                           op_done_o,
    output reg                           fire_any_o,
    output reg  [7:0]                    fires_o,
    output reg  [3:0]                    ffn2_nonzeros_o,
    output reg  [7:0]                    pv_nonzeros_o,
    output reg                           wait_data_o,
    output reg                           wait_drain_o,
    output reg                           wait_steal_o
);
  `include "rowvit_defs.vh"
  localparam N = ROWS * GROUPS;
  // Fire -> captured_o. The shadows are complete two cycles later, when the drain reads their first lane.
  localparam CAPTURED = CAPTURE - 2;

  generate
    if (ROWS != 2 && ROWS != 4 && ROWS != 8) begin : g_bad_rows
      illegal_parameter_issue_rows_must_be_2_4_or_8 u_bad ();
    end
  endgenerate

  // ---------------------------------------------------------------- tile queue
  wire        in_valid, in_null, in_op_last, in_shared, in_sparse, in_pv;
  wire [15:0] in_wbase;
  wire [7:0]  in_groups;
  wire [ROWS-1:0] in_rows;
  wire        load;
  rowvit_fifo #(
      .WIDTH(29 + ROWS),
      .DEPTH(TILE_QUEUE)
  ) u_tiles (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(tile_valid_i), .in_ready_o(tile_ready_o),
      .in_data_i({tile_null_i, tile_op_last_i, tile_shared_i, tile_sparse_i, tile_pv_i,
                  tile_wbase_i, tile_groups_i, tile_rows_i}),
      .out_valid_o(in_valid), .out_ready_i(load),
      .out_data_o({in_null, in_op_last, in_shared, in_sparse, in_pv, in_wbase, in_groups, in_rows}),
      .count_o()
  );

  // The tile under way, and what it means for each cluster.
  reg          tile_q, null_q, op_last_q, shared_q, sparse_q, pv_q;
  reg  [15:0]  wbase_q;
  reg  [N-1:0] needed_q;
  reg  [N-1:0] own_q;       // needed, and takes a fetcher's scalars before any other cluster
  wire         lockstep = !sparse_q;
  wire         tile_end;
  assign load = !tile_q || tile_end;
  integer c;
  always @(posedge clk_i) begin
    if (load) begin
      tile_q <= in_valid && !in_null;
      null_q <= in_valid && in_null;
      {op_last_q, shared_q, sparse_q, pv_q, wbase_q} <= {in_op_last, in_shared, in_sparse, in_pv, in_wbase};
      for (c = 0; c < N; c = c + 1) begin
        needed_q[c] <= in_valid && !in_null && in_rows[c/GROUPS] && c % GROUPS < in_groups;
        own_q[c]    <= in_valid && !in_null && in_rows[c/GROUPS]
                       && (in_shared ? c % GROUPS == 0 : c % GROUPS < in_groups);
      end
    end
    if (!rst_ni) {tile_q, null_q, needed_q, own_q} <= {(2 * N + 2) {1'b0}};
  end

  // ---------------------------------------------------------------- who can fire
  reg  [N-1:0] done_q;     // fetchers whose last scalar of this tile has been fired
  reg  [N-1:0] first_q;    // clusters that have not fired yet in this tile
  reg          inflight_q; // a tile has ended and its shadows are not released yet
  wire         shadow_ok = !inflight_q || release_i;

  // In lock step the rows of a group fire together. Shared scalars go to all groups of a row at once.
  // Otherwise even rows have one port and odd rows the other; those that share one walk the union of their
  // non-zeros, lowest first, and fire together where they agree.
  wire [N-1:0] ok, late, steal, fire_own, fire, last;
  wire [GROUPS-1:0] rows_ok;  // all rows of a group can fire
  wire [9*N-1:0]  x;
  wire [11*N-1:0] idx;
  genvar r, g, o;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      for (g = 0; g < GROUPS; g = g + 1) begin : g_group
        localparam I = r * GROUPS + g;
        localparam I0 = r * GROUPS;
        // the groups whose ports a scalar of this fetcher needs: its own, or all of the row
        wire [GROUPS-1:0] ports = shared_q ? needed_q[I0+:GROUPS] : {{(GROUPS - 1) {1'b0}}, 1'b1} << g;
        assign steal[I]  = r % 2 != 0 && !lockstep && |(wr_valid_i & ports);
        wire [ROWS-1:0] lower;  // rows of the same port that have a lower scalar
        for (o = 0; o < ROWS; o = o + 1) begin : g_before
          localparam O = o * GROUPS + g;
          assign lower[o] = o != r && o % 2 == r % 2 && own_q[O] && x_valid_i[O] && !done_q[O]
                             && x_idx_i[11*O+:11] < x_idx_i[11*I+:11];
        end
        assign late[I] = |lower;
        assign ok[I]     = x_valid_i[I] && !done_q[I] && (!x_last_i[I] || shadow_ok);
        assign fire_own[I] = own_q[I] && ok[I] && (lockstep ? rows_ok[g] : !steal[I] && !late[I]);
        assign fire[I]   = shared_q ? needed_q[I] && fire_own[I0] : fire_own[I];
        assign last[I]   = shared_q ? x_last_i[I0] : x_last_i[I];
        assign x[9*I+:9] = shared_q ? x_data_i[9*I0+:9] : x_data_i[9*I+:9];
        assign idx[11*I+:11] = shared_q ? x_idx_i[11*I0+:11] : x_idx_i[11*I+:11];
      end
    end
  endgenerate
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_together
      wire [ROWS-1:0] each;
      for (r = 0; r < ROWS; r = r + 1) begin : g_each
        assign each[r] = !own_q[r*GROUPS+g] || ok[r*GROUPS+g];
      end
      assign rows_ok[g] = &each;
    end
  endgenerate
  assign x_ready_o = fire_own;

  wire [N-1:0] done_now = done_q | (fire_own & x_last_i);
  assign tile_end = tile_q && &(~own_q | done_now);

  always @(posedge clk_i) begin
    op_done_o <= op_last_q && (null_q || tile_end);
    done_q    <= tile_end ? {N{1'b0}} : done_now;
    first_q   <= tile_end ? {N{1'b1}} : first_q & ~fire;
    if (release_i) inflight_q <= 1'b0;
    if (tile_end) inflight_q <= 1'b1;
    if (!rst_ni) begin
      op_done_o  <= 1'b0;
      done_q     <= {N{1'b0}};
      first_q    <= {N{1'b1}};
      inflight_q <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- pipeline
  // s1: memory address; s2: memory data; s3: cluster inputs
  reg [N-1:0]    fire_s1, first_s1, last_s1, fire_s2, first_s2, last_s2, fire_s3, first_s3, last_s3;
  reg [9*N-1:0]  x_s1, x_s2, x_s3;
  reg            lockstep_s1, lockstep_s2, lockstep_s3;
  reg [CAPTURED-2:0] end_q;
  always @(posedge clk_i) begin
    fire_s1     <= fire;
    first_s1    <= first_q;
    last_s1     <= last;
    x_s1        <= x;
    lockstep_s1 <= lockstep;
    {fire_s2, first_s2, last_s2, x_s2, lockstep_s2} <= {fire_s1, first_s1, last_s1, x_s1, lockstep_s1};
    {fire_s3, first_s3, last_s3, x_s3, lockstep_s3} <= {fire_s2, first_s2, last_s2, x_s2, lockstep_s2};
    end_q      <= {end_q[CAPTURED-3:0], tile_end};
    captured_o <= end_q[CAPTURED-2];
    if (!rst_ni) begin
      fire_s1    <= {N{1'b0}};
      end_q      <= {(CAPTURED - 1){1'b0}};
      captured_o <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- counters, a few cycles late
  wire [N-1:0] open = own_q & ~done_q;
  reg  [N-1:0] nonzero_s2;
  reg          pv_s1, pv_s2;
  reg  [5:0]   fires, nonzeros;  // N is at most 48
  reg  [3:0]   row_nonzeros;
  always @* begin
    fires        = 6'd0;
    nonzeros     = 6'd0;
    row_nonzeros = 4'd0;
    for (c = 0; c < N; c = c + 1) begin
      fires    = fires + {5'd0, fire_s2[c]};
      nonzeros = nonzeros + {5'd0, nonzero_s2[c]};
      if (c % GROUPS == 0) row_nonzeros = row_nonzeros + {3'd0, nonzero_s2[c]};
    end
  end
  always @(posedge clk_i) begin
    {pv_s2, pv_s1} <= {pv_s1, pv_q};
    for (c = 0; c < N; c = c + 1) nonzero_s2[c] <= fire_s1[c] && !lockstep_s1 && x_s1[9*c+:9] != 9'd0;
    fires_o         <= {2'd0, fires};
    pv_nonzeros_o   <= pv_s2 ? {2'd0, nonzeros} : 8'd0;
    ffn2_nonzeros_o <= pv_s2 ? 4'd0 : row_nonzeros;
    fire_any_o   <= |fire_s2;
    wait_data_o  <= ~|fire_own && |(open & ~x_valid_i);
    wait_drain_o <= ~|fire_own && |(open & x_valid_i & x_last_i) && !shadow_ok;
    wait_steal_o <= |(open & x_valid_i & steal);
    if (!rst_ni) begin
      {wait_data_o, wait_drain_o, wait_steal_o, fire_any_o} <= 4'd0;
      {fires_o, pv_nonzeros_o, ffn2_nonzeros_o} <= 20'd0;
      nonzero_s2 <= {N{1'b0}};
    end
  end

  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_mem
      // Of the rows that share a port, those that fire name the same line. In lock step row 0 serves all.
      reg  [10:0] idx0, idx1;
      reg         read0, read1;
      integer     m;
      always @* begin
        {idx0, idx1, read0, read1} = 24'd0;
        for (m = 0; m < ROWS; m = m + 2) begin
          idx0  = idx0 | (idx[11*(m*GROUPS+g)+:11] & {11{fire[m*GROUPS+g] || ROWS == 2}});
          idx1  = idx1 | (idx[11*((m+1)*GROUPS+g)+:11] & {11{fire[(m+1)*GROUPS+g] || ROWS == 2}});
          read0 = read0 || fire_s1[m*GROUPS+g];
          read1 = read1 || fire[(m+1)*GROUPS+g];
        end
      end
      wire [15:0] line0 = wbase_q + {5'd0, idx0};
      wire [15:0] line1 = wbase_q + {5'd0, idx1};
      reg  [AW-1:0]      a_addr_q, b_addr_q;
      reg                b_en_q;
      reg  [LANES-1:0]   b_we_q;
      reg  [8*LANES-1:0] b_data_q;
      wire [8*LANES-1:0] a_data, b_data;
      reg  [8*LANES-1:0] a_q, b_q;
      integer i;
      always @(posedge clk_i) begin
        a_addr_q <= line0[AW-1:0];
        b_addr_q <= wr_valid_i[g] ? wr_line_i[AW*g+:AW] : line1[AW-1:0];
        b_en_q   <= wr_valid_i[g] || (!lockstep && read1);
        b_we_q   <= wr_be_i[LANES*g+:LANES] & {LANES{wr_valid_i[g]}};
        // a reset of the register, not logic before it
        for (i = 0; i < 8 * LANES; i = i + 1)
          if (wr_clear_i[64*g+i%64]) b_data_q[i] <= 1'b0;
          else b_data_q[i] <= wr_data_i[i];
        a_q <= a_data;
        b_q <= b_data;
      end
      rowvit_weight_memory #(
          .LANES(LANES),
          .DEPTH(WEIGHT_DEPTH),
          .AW   (AW)
      ) u_mem (
          .clk_i(clk_i),
          .a_en_i(read0), .a_addr_i(a_addr_q), .a_data_o(a_data),
          .b_en_i(b_en_q), .b_we_i(b_we_q), .b_addr_i(b_addr_q), .b_data_i(b_data_q),
          .b_data_o(b_data)
      );
      for (r = 0; r < ROWS; r = r + 1) begin : g_cluster
        localparam I = r * GROUPS + g;
        rowvit_cluster #(
            .LANES  (LANES),
            .USE_DSP(USE_DSP)
        ) u_cluster (
            .clk_i  (clk_i),
            .en_i   (fire_s3[I]),
            .first_i(first_s3[I]),
            .last_i (last_s3[I]),
            .x_i    (x_s3[9*I+:9]),
            .a_i    (a_q),
            .b_i    (r % 2 == 0 ? {8 * LANES{1'b0}} : b_q),
            .use_b_i(r % 2 != 0 && !lockstep_s3),
            .shadow_o(shadow_o[26*LANES*I+:26*LANES])
        );
      end
    end
  endgenerate
endmodule
`default_nettype wire
