// SPDX-License-Identifier: Apache-2.0
// Issue stage of the array: pairs scalars from the fetchers with weight lines and fires the
// clusters. Dense tiles run all rows in lock step on one read port; in sparse tiles each row (and, in
// attention, each group) walks its own list on its own port, or the rows of a port walk the union of
// theirs. A tile ends when all of its clusters have fired their last scalar; the next one follows
// without a gap.
// Throughput 1 scalar per cluster and cycle. Latency from fire to cluster input 3.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_issue #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Lines of weight memory.
    parameter WEIGHT_DEPTH = 1024,
    // Bits of a weight line's number.
    parameter AW = 10,
    // 1: DSP48E1 primitives, 0: their behavioural twin.
    parameter USE_DSP = 0
) (
    input  wire                          clk_i,
    input  wire                          rst_ni,
    // tiles, in order
    input  wire                          tile_valid_i,
    output wire                          tile_ready_o,
    input  wire [`T_ISSUE]               tile_i,
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
  wire            in_valid, load;
  wire [`T_ISSUE] head;
  rowvit_fifo #(
      .WIDTH(`T_ISSUE_W),
      .DEPTH(TILE_QUEUE)
  ) u_tiles (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(tile_valid_i), .in_ready_o(tile_ready_o), .in_data_i(tile_i),
      .out_valid_o(in_valid), .out_ready_i(load), .out_data_o(head), .count_o()
  );
  wire            in_null = head[`T_NULL];
  wire            in_shared = head[`T_SHARED];
  wire [7:0]      in_groups = head[`T_GROUPS];
  wire [ROWS-1:0] in_rows = head[`T_ROWS];

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
      {op_last_q, shared_q, sparse_q} <= {head[`T_OP_LAST], in_shared, head[`T_SPARSE]};
      {pv_q, wbase_q} <= {head[`T_PV], head[`T_WBASE]};
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
  // All of them are done now; who is late comes last, as it takes comparisons.
  wire [N-1:0] ends = ok & x_last_i & (lockstep ? {ROWS{rows_ok}} : ~steal);
  assign tile_end = tile_q && &(~own_q | done_q | ends) && (lockstep || ~|(own_q & ~done_q & late));

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
  reg [N-1:0]    fire1_q, first1_q, last1_q, fire2_q, first2_q, last2_q, fire3_q, first3_q, last3_q;
  reg [9*N-1:0]  x1_q, x2_q, x3_q;
  reg            lockstep1_q, lockstep2_q, lockstep3_q;
  reg [CAPTURED-2:0] end_q;
  always @(posedge clk_i) begin
    fire1_q     <= fire;
    first1_q    <= first_q;
    last1_q     <= last;
    x1_q        <= x;
    lockstep1_q <= lockstep;
    {fire2_q, first2_q, last2_q, lockstep2_q} <= {fire1_q, first1_q, last1_q, lockstep1_q};
    // else the multipliers stand still
    for (c = 0; c < N; c = c + 1) if (fire1_q[c]) x2_q[9*c+:9] <= x1_q[9*c+:9];
    {fire3_q, first3_q, last3_q, x3_q, lockstep3_q} <= {fire2_q, first2_q, last2_q, x2_q, lockstep2_q};
    end_q      <= {end_q[CAPTURED-3:0], tile_end};
    captured_o <= end_q[CAPTURED-2];
    if (!rst_ni) begin
      fire1_q    <= {N{1'b0}};
      end_q      <= {(CAPTURED - 1){1'b0}};
      captured_o <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- counters, a few cycles late
  wire [N-1:0] open = own_q & ~done_q;
  reg  [N-1:0] nonzero2_q;
  reg          pv1_q, pv2_q;
  reg  [5:0]   fires, nonzeros;  // N is at most 48
  reg  [3:0]   row_nonzeros;
  always @* begin
    fires        = 6'd0;
    nonzeros     = 6'd0;
    row_nonzeros = 4'd0;
    for (c = 0; c < N; c = c + 1) begin
      fires    = fires + {5'd0, fire2_q[c]};
      nonzeros = nonzeros + {5'd0, nonzero2_q[c]};
      if (c % GROUPS == 0) row_nonzeros = row_nonzeros + {3'd0, nonzero2_q[c]};
    end
  end
  always @(posedge clk_i) begin
    {pv2_q, pv1_q} <= {pv1_q, pv_q};
    for (c = 0; c < N; c = c + 1) nonzero2_q[c] <= fire1_q[c] && !lockstep1_q && x1_q[9*c+:9] != 9'd0;
    fires_o         <= {2'd0, fires};
    pv_nonzeros_o   <= pv2_q ? {2'd0, nonzeros} : 8'd0;
    ffn2_nonzeros_o <= pv2_q ? 4'd0 : row_nonzeros;
    fire_any_o   <= |fire2_q;
    wait_data_o  <= ~|fire_own && |(open & ~x_valid_i);
    wait_drain_o <= ~|fire_own && |(open & x_valid_i & x_last_i) && !shadow_ok;
    wait_steal_o <= |(open & x_valid_i & steal);
    if (!rst_ni) begin
      {wait_data_o, wait_drain_o, wait_steal_o, fire_any_o} <= 4'd0;
      {fires_o, pv_nonzeros_o, ffn2_nonzeros_o} <= 20'd0;
      nonzero2_q <= {N{1'b0}};
    end
  end

  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_mem
      // Of the rows that share a port, those that fire name the same line. In lock step row 0 serves all.
      // Each row has its adder, before who fires is known.
      reg  [15:0] line, line0, line1;
      reg         read0, read1;
      integer     m;
      always @* begin
        {line, line0, line1, read0, read1} = 50'd0;
        for (m = 0; m < ROWS; m = m + 2) begin
          line  = wbase_q + {5'd0, idx[11*(m*GROUPS+g)+:11]};
          line0 = line0 | (line & {16{fire[m*GROUPS+g] || ROWS == 2}});
          line  = wbase_q + {5'd0, idx[11*((m+1)*GROUPS+g)+:11]};
          line1 = line1 | (line & {16{fire[(m+1)*GROUPS+g] || ROWS == 2}});
          read0 = read0 || fire1_q[m*GROUPS+g];
          read1 = read1 || fire[(m+1)*GROUPS+g];
        end
      end
      reg  [AW-1:0]      a_addr_q, b_addr_q;
      reg                b_en_q, b_read_q;
      wire [1:0]         b_came;  // what was read; for a half each, as it has many loads
      rowvit_copies #(.N(2)) u_came (.clk_i(clk_i), .d_i(b_read_q), .q_o(b_came));
      reg  [LANES-1:0]   b_we_q;
      reg  [8*LANES-1:0] b_data_q;
      wire [8*LANES-1:0] a_data, b_data;
      reg  [8*LANES-1:0] a_q, b_q;
      integer i;
      always @(posedge clk_i) begin
        a_addr_q <= line0[AW-1:0];
        b_addr_q <= wr_valid_i[g] ? wr_line_i[AW*g+:AW] : line1[AW-1:0];
        b_en_q   <= wr_valid_i[g] || (!lockstep && read1);
        b_read_q <= !wr_valid_i[g] && !lockstep && read1;
        b_we_q   <= wr_be_i[LANES*g+:LANES] & {LANES{wr_valid_i[g]}};
        // a reset of the register, not logic before it
        for (i = 0; i < 8 * LANES; i = i + 1)
          if (wr_clear_i[64*g+i%64]) b_data_q[i] <= 1'b0;
          else b_data_q[i] <= wr_data_i[i];
        a_q <= a_data;
        // a write shows in b_data, too
        if (b_came[0]) b_q[4*LANES-1:0] <= b_data[4*LANES-1:0];
        if (b_came[1]) b_q[8*LANES-1:4*LANES] <= b_data[8*LANES-1:4*LANES];
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
            .en_i   (fire3_q[I]),
            .first_i(first3_q[I]),
            .last_i (last3_q[I]),
            .x_i    (x3_q[9*I+:9]),
            .a_i    (a_q),
            .b_i    (r % 2 == 0 ? {8 * LANES{1'b0}} : b_q),
            .use_b_i(r % 2 != 0 && !lockstep3_q),
            .shadow_o(shadow_o[26*LANES*I+:26*LANES])
        );
      end
    end
  endgenerate
endmodule
`default_nettype wire
