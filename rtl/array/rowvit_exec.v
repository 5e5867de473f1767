// SPDX-License-Identifier: Apache-2.0
// Array sequencer: turns MATMUL and ATTN instructions into tiles. A tile is one band of rows against
// one set of weight lines; each is announced to the fetchers, to the issue stage and to the drain in
// one cycle. ATTN interleaves: S of band i+1 runs while the softmax of band i does.
// Throughput 1 tile per 2 cycles (2 * ROWS + 5 in gathered bands). Latency from dependencies met to tile: 3,
// and a cycle per skipped band, or 2 * ROWS + 4 if gathered; of later bands 1, of ATTN GROUPS + 2.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_exec #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a row's number.
    parameter BANK_W = 1
) (
    input  wire                       clk_i,
    input  wire                       rst_ni,
    input  wire                       instr_valid_i,
    output wire                       instr_ready_o,
    input  wire [511:0]               instr_i,
    input  wire [95:0]                done_i,
    input  wire [95:0]                bands_i,
    // live tokens and gathered rows
    input  wire [15:0]                live_i,
    output wire                       set_live_o,
    output wire [15:0]                set_live_rows_o,
    output wire                       src_read_o,
    output wire [16*ROWS-1:0]         src_addr_o,
    input  wire [16*ROWS-1:0]         src_data_i,
    // softmax
    output wire                       attn_start_o,
    output reg  [15:0]                rows_o,         // rows of the running operation
    input  wire [15:0]                softmax_bands_i,
    // one tile to all takers
    output wire                       tile_valid_o,
    input  wire                       tile_ready_i,
    output wire [`T_ALL]              tile_o,
    output wire                       busy_o
);
  `include "rowvit_defs.vh"
  localparam LW = $clog2(LANES);

  // ---------------------------------------------------------------- fields
  wire [15:0] flags    = instr_i[F_FLAGS+:16];
  reg         attn_q;  // of the cycle before, as the number of groups: an instruction is stable before start
  always @(posedge clk_i) attn_q <= instr_i[F_OPCODE+:4] == OP_ATTN[3:0];
  wire        gather   = !attn_q && flags[FLAG_GATHER];
  wire        nothing  = flags[FLAG_VOID];
  // MATMUL; in ATTN, what takes the same way
  wire [15:0] src_base = attn_q ? instr_i[F_ATTN_Q_BASE+:16] : instr_i[F_MATMUL_SRC_BASE+:16];
  wire [15:0] src_step = attn_q ? instr_i[F_ATTN_Q_STRIDE+:16] : instr_i[F_MATMUL_SRC_STRIDE+:16];
  wire [15:0] count    = attn_q ? instr_i[F_ATTN_HEAD_DIM+:16] : instr_i[F_MATMUL_K+:16];
  wire [7:0]  groups   = attn_q ? instr_i[F_ATTN_GROUPS+:8] : instr_i[F_MATMUL_GROUPS+:8];
  wire [15:0] dst_base = attn_q ? instr_i[F_ATTN_O_BASE+:16] : instr_i[F_MATMUL_DST_BASE+:16];
  wire [15:0] dst_step = attn_q ? instr_i[F_ATTN_O_STRIDE+:16] : instr_i[F_MATMUL_DST_STRIDE+:16];
  // MATMUL only
  wire [15:0] wbase    = instr_i[F_MATMUL_WBASE+:16];
  wire [15:0] res_base = instr_i[F_MATMUL_RES_FROM+:16];
  wire [15:0] band0    = instr_i[F_MATMUL_BAND0+:16];
  wire [15:0] n_bands  = instr_i[F_MATMUL_BANDS+:16];
  wire [15:0] mask_base = instr_i[F_MATMUL_MASK_BASE+:16];
  wire [15:0] mask_bands = instr_i[F_MATMUL_MASK_BANDS+:16];
  wire [15:0] mask_step = instr_i[F_MATMUL_MASK_STRIDE+:16];
  wire [15:0] set_rows = instr_i[F_MATMUL_ROWS+:16];
  wire [15:0] table_base = instr_i[F_MATMUL_TABLE+:16];
  // ATTN only
  wire [15:0] kt_base  = instr_i[F_ATTN_KT_BASE+:16];
  wire [15:0] v_base   = instr_i[F_ATTN_V_BASE+:16];
  wire [15:0] p_base   = instr_i[F_ATTN_P_BASE+:16];
  wire [15:0] p_step   = instr_i[F_ATTN_P_STRIDE+:16];

  // ---------------------------------------------------------------- state
  localparam X_IDLE = 3'd0, X_SKIP = 3'd1, X_GATHER = 3'd2, X_TILE = 3'd3, X_SETUP = 3'd4,
             X_S = 3'd5, X_PV = 3'd6, X_NULL = 3'd7;
  reg [2:0]  state_q;
  reg [15:0] bands_q;       // bands of live rows
  reg [15:0] end_q;         // one past the last band of this operation
  reg [15:0] band_q;        // MATMUL, S: current band
  reg [15:0] pv_band_q;     // PV runs up to two bands behind S
  reg [15:0] src_q, dst_q;  // addresses of the current band
  reg [15-BANK_W:0] table_q;  // and its entry in the selection table, in bands
  reg [15:0] token_q;       // S: first token of the tile
  reg [15:0] wline_q;       // S: weight line of the tile
  reg [15:0] mask_q, mask_left_q;
  reg [16*GROUPS-1:0] p_addr_q;  // address of each group's P, even bands
  reg [15:0] p_odd_q;            // distance to the odd bands' P
  reg [7:0]  setup_q;

  wire is_tile = state_q == X_TILE, is_s = state_q == X_S, is_pv = state_q == X_PV;

  // Dependencies, once met, stay so: they are registered, and known anew a cycle after a tile.
  // Between operations the band is 0.
  wire dep_ok;
  reg  dep_q;
  rowvit_dep_check u_dep (
      .chain_i(instr_i[F_CHAIN+:N_ENGINE]), .dep_i(instr_i[F_DEPS+:16*N_ENGINE]),
      .done_i(done_i), .bands_i(bands_i),
      .band_i (band_q), .ok_o(dep_ok)
  );

  wire [15:0] rows_now = flags[FLAG_ONE_ROW] ? 16'd1 : flags[FLAG_SET_LIVE] ? set_rows : live_i;
  wire [16:0] end_now = {1'b0, band0} + {1'b0, n_bands};
  // Of the cycle before, in which the dependencies were seen to be met; so was what they made.
  reg  [15:0] rows_q;
  reg  [16:0] limit_q;
  wire [15:0] bands_now = (rows_q + ROWS[15:0] - 16'd1) >> BANK_W;
  wire        start = state_q == X_IDLE && instr_valid_i && dep_q;
  assign set_live_o = start && !attn_q && flags[FLAG_SET_LIVE] && !nothing;
  assign set_live_rows_o = set_rows;
  assign attn_start_o = start && attn_q;
  assign busy_o = state_q != X_IDLE;

  // Gathered rows: the addresses of the source rows, through one multiplier.
  localparam GW = BANK_W + 2;
  localparam G_LAST = 2 * ROWS + 3, TWO = 2 % ROWS;
  reg  [GW-1:0]          g_step_q;
  reg  [16*ROWS-1:0]     g_addr_q, g_res_q;
  reg  [BANK_W*ROWS-1:0] g_bank_q;
  reg  [9:0]             g_half_q;
  reg  [11:0]            g_factor_q;
  reg  [15:0]            product_q;
  assign src_read_o = state_q == X_GATHER && g_step_q == {GW{1'b0}};
  // the row whose product begins, and that whose product is used; out of step, any
  wire [BANK_W-1:0]      g_row = g_step_q[1+:BANK_W] - 1'b1;
  wire [BANK_W-1:0]      g_use = g_step_q[1+:BANK_W] - TWO[BANK_W-1:0];

  // ---------------------------------------------------------------- the tile announced
  // About the band of a cycle ago: a tile of another band comes two cycles after the one before it.
  reg  [ROWS-1:0] exist_q, pv_exist_q;
  reg         last_pv_q, pv_go_q;
  wire s_go    = is_s && (token_q != 16'd0 || dep_q);
  wire pv_go   = is_pv && pv_go_q;
  wire mm_go   = is_tile && dep_q;
  assign tile_valid_o = s_go || pv_go || mm_go || state_q == X_NULL;
  wire   push         = tile_valid_o && tile_ready_i;

  reg  [7:0] groups_q;
  reg  last_mm_q;  // of the band that band_q was a cycle ago: MATMUL's tiles are two cycles apart
  reg  [15:0] s_end_q;  // number of a band's last S
  wire [15:0] token_tiles = (rows_o + LANES[15:0] - 16'd1) >> LW;
  wire is_null    = state_q == X_NULL;
  wire op_last = is_null || (is_tile && last_mm_q) || (is_pv && last_pv_q);
  wire s_last  = token_q >> LW == s_end_q;
  assign tile_o[`T_NULL]     = is_null;
  assign tile_o[`T_OP_LAST]  = op_last;
  assign tile_o[`T_SHARED]   = is_tile;
  assign tile_o[`T_SPARSE]   = is_pv || (is_tile && flags[FLAG_SPARSE]);
  assign tile_o[`T_UNSIGNED] = is_pv || (is_tile && flags[FLAG_UNSIGNED]);
  assign tile_o[`T_PV]       = is_pv;
  assign tile_o[`T_S]        = is_s;
  assign tile_o[`T_WBASE]    = is_s ? wline_q : is_pv ? v_base : wbase;
  assign tile_o[`T_GROUPS]   = groups_q;
  assign tile_o[`T_ROWS]     = is_pv ? pv_exist_q : exist_q;
  assign tile_o[`T_COUNT]    = is_pv ? token_tiles[10:0] : count[10:0];
  assign tile_o[`T_BAND]     = is_pv ? pv_band_q : band_q;
  assign tile_o[`T_GATHER]   = gather;
  assign tile_o[`T_RES_SRC]  = g_res_q;
  assign tile_o[`T_DST]      = dst_q;
  assign tile_o[`T_S_FIRST]  = token_q == 16'd0;
  assign tile_o[`T_S_LAST]   = s_last;
  assign tile_o[`T_TOKEN]    = token_q;
  assign tile_o[`T_MASK_END] = mask_left_q == 16'd1 || (last_mm_q && !flags[FLAG_JOIN]);
  assign tile_o[`T_MASK]     = mask_q;
  wire [BANK_W*ROWS-1:0]      bank;
  wire [16*ROWS*GROUPS-1:0]   addr;
  assign tile_o[`T_BANK] = bank;
  assign tile_o[`T_ADDR] = addr;
  genvar r, g;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row_addr
      localparam [BANK_W-1:0] ROW = r;
      assign src_addr_o[16*r+:16] = {table_q, ROW};
      assign bank[BANK_W*r+:BANK_W] = gather ? g_bank_q[BANK_W*r+:BANK_W] : ROW;
      always @(posedge clk_i) begin
        exist_q[r]    <= r == 0 || {band_q[15-BANK_W:0], ROW} < rows_o;
        pv_exist_q[r] <= r == 0 || {pv_band_q[15-BANK_W:0], ROW} < rows_o;
      end
      for (g = 0; g < GROUPS; g = g + 1) begin : g_addr
        localparam HEAD = g * LANES / 8;
        assign addr[16*(r*GROUPS+g)+:16] =
            is_pv ? p_addr_q[16*g+:16] + (pv_band_q[0] ? p_odd_q : 16'd0)
                  : gather ? g_addr_q[16*r+:16] : src_q + (is_s ? HEAD[15:0] : 16'd0);
      end
    end
  endgenerate

  assign instr_ready_o = push && op_last;
  integer i;

  always @(posedge clk_i) begin
    for (i = 0; i < ROWS; i = i + 1) if (g_row == i[BANK_W-1:0]) g_half_q <= src_data_i[16*i+BANK_W+:10];
    g_factor_q <= g_step_q[0] ? dst_step[11:0] : src_step[11:0];
    product_q  <= g_half_q * g_factor_q;
    g_step_q   <= (g_step_q + 1'b1) & {GW{state_q == X_GATHER && g_step_q != G_LAST[GW-1:0]}};
    dep_q     <= instr_valid_i && dep_ok && !push;
    rows_q    <= rows_now;
    limit_q   <= end_now;
    groups_q  <= groups;
    last_mm_q <= band_q + 16'd1 >= end_q;
    last_pv_q <= pv_band_q + 16'd1 == bands_q;
    pv_go_q   <= softmax_bands_i > pv_band_q && !push;
    s_end_q   <= (rows_o - 16'd1) >> LW;
    case (state_q)
      X_IDLE: begin
        band_q      <= 16'd0;
        pv_band_q   <= 16'd0;
        src_q       <= src_base;
        table_q     <= table_base[15:BANK_W];
        dst_q       <= dst_base;
        token_q     <= 16'd0;
        wline_q     <= kt_base;
        mask_q      <= mask_base;
        mask_left_q <= mask_bands;
        setup_q     <= 8'd0;
        p_odd_q     <= 16'd0;
        if (start) begin
          rows_o  <= rows_q;
          bands_q <= bands_now;
          end_q   <= limit_q < {1'b0, bands_now} ? limit_q[15:0] : bands_now;
          state_q <= attn_q ? X_SETUP : X_SKIP;
        end
      end
      X_SKIP:
      if (nothing || band0 >= end_q) state_q <= X_NULL;
      else if (band_q != band0) begin
        band_q  <= band_q + 16'd1;
        src_q   <= src_q + src_step;
        table_q <= table_q + 1'b1;
        dst_q   <= dst_q + dst_step;
      end else state_q <= gather ? X_GATHER : X_TILE;
      X_GATHER: begin
        // The table answers in step 1. Steps 2 and 3 take row 0 and the source and residual strides, the
        // next two row 1, and so on; each product is there two steps later. (What is written before that
        // is written again.)
        for (i = 0; i < ROWS; i = i + 1) begin
          if (g_use == i[BANK_W-1:0] && g_step_q[0]) g_res_q[16*i+:16] <= res_base + product_q;
          if (g_use == i[BANK_W-1:0] && !g_step_q[0]) g_addr_q[16*i+:16] <= src_base + product_q;
          g_bank_q[BANK_W*i+:BANK_W] <= src_data_i[16*i+:BANK_W];
        end
        if (g_step_q == G_LAST[GW-1:0]) state_q <= X_TILE;
      end
      X_TILE:
      if (push) begin
        band_q      <= last_mm_q ? 16'd0 : band_q + 16'd1;
        src_q       <= src_q + src_step;
        table_q     <= table_q + 1'b1;
        dst_q       <= dst_q + dst_step;
        mask_left_q <= mask_left_q - 16'd1;
        if (mask_left_q == 16'd1) begin
          mask_left_q <= mask_bands;
          mask_q      <= mask_q + mask_step;
        end
        if (last_mm_q) state_q <= X_IDLE;
        else if (gather) state_q <= X_GATHER;
      end
      X_SETUP: begin  // P addresses of the groups, by addition
        setup_q <= setup_q + 8'd1;
        p_odd_q <= p_odd_q + p_step;
        p_addr_q[16*setup_q+:16] <= p_base + p_odd_q;
        if (setup_q == GROUPS[7:0] - 8'd1) state_q <= X_S;
      end
      X_S:
      if (push) begin
        token_q <= token_q + LANES[15:0];
        wline_q <= wline_q + LANES[15:0];
        if (s_last) begin
          token_q <= 16'd0;
          wline_q <= kt_base;
          band_q  <= band_q + 16'd1;
          src_q   <= src_q + src_step;
          // S runs two bands ahead of PV
          if (band_q != pv_band_q || band_q + 16'd1 == bands_q) state_q <= X_PV;
        end
      end
      X_PV:
      if (push) begin
        pv_band_q <= pv_band_q + 16'd1;
        dst_q     <= dst_q + dst_step;
        if (last_pv_q) begin
          band_q  <= 16'd0;
          state_q <= X_IDLE;
        end else if (band_q != bands_q) state_q <= X_S;
      end
      default:  // X_NULL
      if (push) begin
        band_q  <= 16'd0;
        state_q <= X_IDLE;
      end
    endcase
    if (!rst_ni) begin
      state_q <= X_IDLE;
      dep_q   <= 1'b0;
    end
  end
endmodule
`default_nettype wire
