// SPDX-License-Identifier: Apache-2.0
// The passes of LayerNorm: pass 1 sums a part, pass 2 normalises it. Each reads the addresses of one band
// from the residual memory, at most one per cycle; pass 1 of the next part goes first, if it may.
// Throughput: an address per cycle in which move_i is high, and a cycle between passes.
// Latency: 1 cycle from a start to the first read.
`default_nettype none

module rowvit_norm_passes #(
    // Rows of a part.
    parameter ROWS = 2,
    // Parts of a band: 1 or 2.
    parameter PARTS = 1,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a parameter's number.
    parameter PW = 9
) (
    input  wire              clk_i,
    input  wire              rst_ni,
    // An operation starts; its settings stay until it is done.
    input  wire              start_i,
    input  wire              run_i,         // it is under way
    input  wire [15:0]       count_i,       // rows
    input  wire [10:0]       dim_i,
    input  wire [15:0]       res_base_i,
    input  wire [15:0]       res_stride_i,
    input  wire [15:0]       dst_base_i,
    input  wire [15:0]       dst_stride_i,
    input  wire [PW-1:0]     param_base_i,  // its first parameter
    // The band of the next pass 1, and whether it may be read, as of the cycle before.
    output wire [15:0]       band_o,
    input  wire              band_ok_i,
    // Of each part: its statistics can take new sums; they have what pass 2 needs.
    input  wire [PARTS-1:0]  free_i,
    input  wire [PARTS-1:0]  valid_i,
    output wire              sum_start_o,   // a pass 1 starts
    output wire              sum_part_o,    // of this part
    // What is read is in stage 2 for one cycle.
    input  wire              move_i,
    // Residual memory.
    output wire              pass_o,        // a pass reads: rd_addr_o counts
    output wire              rd_valid_o,
    input  wire              rd_ready_i,
    output wire [15:0]       rd_addr_o,
    // The read of this cycle.
    output wire              read_o,
    output wire              square_o,      // of pass 1
    output wire              first_o,       // the pass's first
    output wire              part_o,
    output wire              octet_end_o,
    output wire              band_end_o,    // the pass's last
    output wire              norm_end_o,    // the pass 2 is the last of its band,
    output wire              last_part_o,   // and of the operation
    output wire [GROUPS-1:0] groups_o,      // groups and rows of the tile that exist
    output wire [ROWS-1:0]   rows_o,
    output wire [15:0]       word_o,        // pass 2: token memory word of group 0
    output wire [PW-1:0]     param_o        // pass 2: parameter
);
  localparam LW = $clog2(LANES);
  localparam [15:0] TILE_STEP = (GROUPS[15:0] - 16'd1) * (LANES[15:0] / 16'd8) + 16'd1;  // words
  localparam [10:0] TILE_CHANNELS = GROUPS[10:0] * LANES[10:0];

  reg         pass_q;       // a pass reads
  reg         square_q;     // it is pass 1
  reg  [15:0] addr_q;       // address
  reg  [LW-1:0] lane_q;
  reg  [10:0] left_q;       // channels from this tile on
  reg         first_q;      // nothing read yet
  reg  [15:0] sum_band_q;                          // of the next pass 1
  reg  [15:0] sum_row_q, sum_base_q;               // its first row, residual address
  reg  [15:0] norm_row_q, norm_base_q, norm_dst_q; // next pass 2: also the token memory word
  reg  [15:0] sum_row_next_q, sum_base_next_q;     // after the next passes
  reg  [15:0] norm_row_next_q, norm_base_next_q, norm_dst_next_q;
  reg         last_tile_q;                         // the tile is the band's last
  reg  [15:0] word_q;
  reg  [PW-1:0] param_q;
  reg         sum_part_q, norm_part_q;             // of the next passes
  reg         part_q;                              // of this pass
  wire        sum_end, norm_end;                   // they are the last of their band

  wire can_sum = sum_row_q < count_i && band_ok_i && free_i[PARTS > 1 && sum_part_q];
  wire start_sum = run_i && !pass_q && can_sum;
  wire start_norm = run_i && !pass_q && !can_sum && valid_i[PARTS > 1 && norm_part_q];
  wire read = rd_valid_o && rd_ready_i;
  wire lane_end = &lane_q;
  wire octet_end = read && (&lane_q[2:0]);
  wire band_end = last_tile_q && lane_end;

  always @(posedge clk_i) begin
    if (start_i) begin
      sum_row_q <= 16'd0;
      sum_base_q <= res_base_i;
      sum_band_q <= 16'd0;
      norm_row_q <= 16'd0;
      sum_part_q <= 1'b0;
      norm_part_q <= 1'b0;
      norm_base_q <= res_base_i;
      norm_dst_q <= dst_base_i;
    end
    if (!pass_q) begin
      lane_q <= 0;
      left_q <= dim_i;
      first_q <= 1'b1;
      square_q <= start_sum;
      part_q <= start_sum ? sum_part_q : norm_part_q;
      addr_q <= start_sum ? sum_base_q : norm_base_q;
      word_q <= norm_dst_q;
      param_q <= param_base_i;
    end else if (read) begin
      lane_q <= lane_q + 1'b1;
      addr_q <= addr_q + 16'd1;
      param_q <= param_q + 1'b1;
      first_q <= 1'b0;
      if (lane_end) left_q <= left_q - TILE_CHANNELS;
      if (octet_end) word_q <= word_q + (lane_end ? TILE_STEP : 16'd1);
    end
    pass_q <= (pass_q || start_sum || start_norm) && !(read && band_end);
    // early, so that band_ok_i is about the next band when the pass ends
    if (start_sum && sum_end) sum_band_q <= sum_band_q + 16'd1;
    if (read && band_end) begin
      if (square_q) begin
        sum_row_q <= sum_row_next_q;
        sum_part_q <= !sum_end;
        if (sum_end) sum_base_q <= sum_base_next_q;
      end else begin
        norm_row_q <= norm_row_next_q;
        norm_part_q <= !norm_end;
        if (norm_end) begin
          norm_base_q <= norm_base_next_q;
          norm_dst_q <= norm_dst_next_q;
        end
      end
    end
    // These stand for many cycles before they are used.
    sum_row_next_q <= sum_row_q + ROWS[15:0];
    sum_base_next_q <= sum_base_q + res_stride_i;
    norm_row_next_q <= norm_row_q + ROWS[15:0];
    norm_base_next_q <= norm_base_q + res_stride_i;
    norm_dst_next_q <= norm_dst_q + dst_stride_i;
    last_tile_q <= left_q <= TILE_CHANNELS;
    if (!rst_ni) pass_q <= 1'b0;
  end

  genvar g, r;
  generate
    for (g = 0; g < GROUPS; g = g + 1) begin : g_groups
      localparam [31:0] BELOW = g * LANES;
      assign groups_o[g] = left_q > BELOW[10:0];
    end
    for (r = 0; r < ROWS; r = r + 1) begin : g_rows
      localparam [15:0] OFFSET = r;
      assign rows_o[r] = norm_row_q + OFFSET < count_i;
    end
  endgenerate
  assign last_part_o = norm_row_q + ROWS[15:0] >= count_i;
  assign sum_end = PARTS == 1 || sum_part_q || sum_row_q + ROWS[15:0] >= count_i;
  assign norm_end = PARTS == 1 || norm_part_q || last_part_o;

  assign band_o = sum_band_q;
  assign sum_start_o = start_sum;
  assign sum_part_o = sum_part_q;
  assign pass_o = pass_q;
  assign rd_valid_o = pass_q && move_i;
  assign rd_addr_o = addr_q;
  assign read_o = read;
  assign square_o = square_q;
  assign first_o = first_q;
  assign part_o = part_q;
  assign octet_end_o = octet_end;
  assign band_end_o = band_end;
  assign norm_end_o = norm_end;
  assign word_o = word_q;
  assign param_o = param_q;
endmodule

`default_nettype wire
