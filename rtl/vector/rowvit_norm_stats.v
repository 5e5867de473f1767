// SPDX-License-Identifier: Apache-2.0
// Sums of LayerNorm's pass 1 and what pass 2 needs of them (docs/numerics.md, section 4): per row
// S1, n and R. V = D * S2 - S1 * S1 by shift and add, its root, and the root's reciprocal are three
// sequential units that the rows of a band pass one after the other.
// A new band may be summed as soon as the last row's sums entered the first unit (free_o).
// Latency: 83 + 36 * (ROWS - 1) cycles from the last square to valid_o.
`default_nettype none

module rowvit_norm_stats #(
    // Rows of a part.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3
) (
    input  wire                      clk_i,
    input  wire                      rst_ni,
    input  wire                      move_i,  // the pipeline moves in the next cycle
    input  wire [7:0]                dim8_i,  // channels / 8
    // A pass 1 starts: the sums are in use.
    input  wire                      start_i,
    output wire                      free_o,
    // Channels of all rows, and four stages later their squares; the flags come one and two stages
    // later, with the sums over the groups.
    input  wire [16*ROWS*GROUPS-1:0] x_i,
    input  wire                      x_valid_i,
    input  wire                      x_first_i,
    input  wire [32*ROWS*GROUPS-1:0] square_i,
    input  wire                      square_valid_i,
    input  wire                      square_first_i,
    input  wire                      square_last_i,
    // Results of the oldest band not taken yet. Pass 2 loads them one after the other, as its first
    // channel reaches the stages that use them; the last load frees them.
    output wire                      valid_o,
    input  wire                      load_s1_i,
    input  wire                      load_n_i,
    input  wire                      load_r_i,
    output reg  [26*ROWS-1:0]        s1_o,
    output reg  [5*ROWS-1:0]         n_o,
    output reg  [17*ROWS-1:0]        r_o
);
  localparam S1_W = 26;  // at most 1024 channels
  localparam S2_W = 41;
  localparam V_W = 52;
  localparam X_W = 16 + $clog2(GROUPS), SQUARE_W = 31 + $clog2(GROUPS);  // of all groups
  localparam RW = ROWS > 1 ? $clog2(ROWS) : 1;
  localparam [RW-1:0] LAST = ROWS[RW-1:0] - 1'b1;

  // ---------------------------------------------------------------- sums
  // A copy of the enable, as in rowvit_norm_lane.
  (* keep = "true" *) reg en_q;
  (* keep = "true" *) always @(posedge clk_i) en_q <= move_i;
  reg [S1_W*ROWS-1:0] s1_q;
  reg [S2_W*ROWS-1:0] s2_q;
  genvar r;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      reg [X_W-1:0]      x, x_q;
      reg [SQUARE_W-1:0] low, high, low_q, high_q, square_q;  // of the lower groups, of the others
      integer g;
      always @* begin
        x = 0;
        low = 0;
        high = 0;
        for (g = 0; g < GROUPS; g = g + 1) begin
          x = x + {{(X_W - 16){x_i[16*(r*GROUPS+g)+15]}}, x_i[16*(r*GROUPS+g)+:16]};
          if (2 * g < GROUPS) low = low + {{(SQUARE_W - 31){1'b0}}, square_i[32*(r*GROUPS+g)+:31]};
          else high = high + {{(SQUARE_W - 31){1'b0}}, square_i[32*(r*GROUPS+g)+:31]};
        end
      end
      always @(posedge clk_i) begin
        if (en_q) begin
          x_q <= x;
          {low_q, high_q} <= {low, high};
          square_q <= low_q + high_q;
          if (x_valid_i)
            s1_q[S1_W*r+:S1_W] <= {{(S1_W - X_W){x_q[X_W-1]}}, x_q}
                + (x_first_i ? {S1_W{1'b0}} : s1_q[S1_W*r+:S1_W]);
          if (square_valid_i)
            s2_q[S2_W*r+:S2_W] <= {{(S2_W - SQUARE_W){1'b0}}, square_q}
                + (square_first_i ? {S2_W{1'b0}} : s2_q[S2_W*r+:S2_W]);
        end
      end
    end
  endgenerate

  // ---------------------------------------------------------------- V, one row at a time
  // Bit by bit of D / 8, S2 * 8 is added; bit by bit of S1, S1 is taken away (its sign bit has the
  // opposite weight). Both shift left meanwhile.
  localparam V_IDLE = 2'd0, V_ADD = 2'd1, V_NEXT = 2'd2, V_SUB = 2'd3;
  localparam ADDS = 8, SUBS = S1_W;
  reg [1:0]           state_q;
  reg [4:0]           left_q;
  reg [RW-1:0]        row_q;
  reg [V_W-1:0]       v_q, term_q;
  reg [S1_W-1:0]      bits_q;
  reg                 used_q, summed_q;
  reg                 root_start_q;
  reg                 open_q;   // results of a band are on their way or wait
  reg                 valid_q;  // all of them wait
  reg [S1_W*ROWS-1:0] result_s1_q;
  wire                load = state_q == V_IDLE && summed_q && (row_q != 0 || !open_q);
  wire                last_step = left_q == 5'd1;
  wire                subtract = state_q == V_SUB && !last_step;
  reg  [S1_W-1:0]     s1_row;
  reg  [S2_W-1:0]     s2_row;
  wire [V_W-1:0]      step = {V_W{bits_q[0]}} & term_q;
  wire [V_W:0]        v_d = {v_q, 1'b1} + {step ^ {V_W{subtract}}, subtract};

  integer i;
  always @* begin
    s1_row = 0;
    s2_row = 0;
    for (i = 0; i < ROWS; i = i + 1) begin
      if (row_q == i[RW-1:0]) begin
        s1_row = s1_row | result_s1_q[S1_W*i+:S1_W];
        s2_row = s2_row | s2_q[S2_W*i+:S2_W];
      end
    end
  end

  assign free_o = !used_q;
  always @(posedge clk_i) begin
    root_start_q <= state_q == V_SUB && last_step;
    summed_q <= (summed_q || (en_q && square_valid_i && square_last_i)) && !(load && row_q == LAST);
    used_q <= (used_q || start_i) && !(load && row_q == LAST);
    open_q <= (load && row_q == 0) || (open_q && !(en_q && load_r_i));
    case (state_q)
      V_IDLE: begin
        v_q <= 0;
        left_q <= ADDS[4:0];
        bits_q <= {{(S1_W - ADDS){1'b0}}, dim8_i};
        term_q <= {{(V_W - S2_W - 3){1'b0}}, s2_row, 3'd0};
        if (load) begin
          state_q <= V_ADD;
          if (row_q == 0) result_s1_q <= s1_q;
        end
      end
      V_NEXT: begin
        left_q <= SUBS[4:0];
        bits_q <= s1_row;
        term_q <= {{(V_W - S1_W){s1_row[S1_W-1]}}, s1_row};
        state_q <= V_SUB;
      end
      default: begin
        v_q <= v_d[V_W:1];
        term_q <= term_q << 1;
        bits_q <= bits_q >> 1;
        left_q <= left_q - 5'd1;
        if (last_step) begin
          state_q <= state_q == V_ADD ? V_NEXT : V_IDLE;
          if (state_q == V_SUB) row_q <= row_q == LAST ? {RW{1'b0}} : row_q + 1'b1;
        end
      end
    endcase
    if (!rst_ni) begin
      state_q <= V_IDLE;
      row_q <= 0;
      root_start_q <= 1'b0;
      open_q <= 1'b0;
      used_q <= 1'b0;
      summed_q <= 1'b0;
    end
  end

  // ---------------------------------------------------------------- root and reciprocal
  wire        root_done, recip_done;
  wire [25:0] root;
  wire [4:0]  n;
  wire [16:0] r_new;
  rowvit_isqrt u_isqrt (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(root_start_q), .v_i(v_q), .done_o(root_done), .root_o(root)
  );
  rowvit_recip #(
      .QW(26)
  ) u_recip (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .start_i(root_done), .q_i({root[25:1], root[0] || root == 26'd0}),  // V is at least 1
      .done_o(recip_done), .n_o(n), .r_o(r_new)
  );

  reg [RW-1:0]      out_row_q;
  reg [5*ROWS-1:0]  result_n_q;
  reg [17*ROWS-1:0] result_r_q;
  assign valid_o = valid_q;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_result
      always @(posedge clk_i) begin
        if (recip_done && out_row_q == r) begin
          result_n_q[5*r+:5] <= n;
          result_r_q[17*r+:17] <= r_new;
        end
      end
    end
  endgenerate
  always @(posedge clk_i) begin
    if (en_q && load_s1_i) s1_o <= result_s1_q;
    if (en_q && load_n_i) n_o <= result_n_q;
    if (en_q && load_r_i) r_o <= result_r_q;
    valid_q <= (recip_done && out_row_q == LAST) || (valid_q && !(en_q && load_r_i));
    if (recip_done) out_row_q <= out_row_q == LAST ? {RW{1'b0}} : out_row_q + 1'b1;
    if (!rst_ni) begin
      out_row_q <= 0;
      valid_q <= 1'b0;
    end
  end
endmodule

`default_nettype wire
