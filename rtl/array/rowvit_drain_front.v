// SPDX-License-Identifier: Apache-2.0
// Front of the drain: the queue of tiles, the lane that is read (stage 0), and the events of tiles that are
// complete, a fixed number of cycles behind their last lane.
// Throughput 1 lane per cycle, of all rows and groups, and a cycle between tiles. Latency 1 to lane_o.
`default_nettype none
`include "rowvit_buses.vh"

module rowvit_drain_front #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Bits of a row's number.
    parameter BANK_W = 1,
    // 1: tiles may be rotated or gated, whose results come ROTATE cycles later.
    parameter ROTARY = 0
) (
    input  wire                     clk_i,
    input  wire                     rst_ni,
    input  wire                     tile_valid_i,
    output wire                     tile_ready_o,
    input  wire [`T_DRAIN]          tile_i,
    input  wire [511:0]             instr_i,      // of the operation the tile belongs to
    input  wire                     captured_i,   // its shadows are complete
    output reg                      release_o,    // they may be overwritten soon
    // records: space for what is in the pipeline, for a MARK; one is half written
    input  wire                     room_i,
    input  wire                     mark_room_i,
    input  wire                     marking_i,
    // the tile that is read
    output wire [`T_QUEUE]          tile_o,
    output wire [`O_ALL]            op_o,
    // its lane, and its row (gathered rows) or group (logits), when these go one by one
    output wire                     step_o,
    output wire                     first_o,
    output wire                     last_o,
    output wire [$clog2(LANES)-1:0] lane_o,
    output wire [7:0]               sub_o,
    // a MARK record is due
    output wire                     mark_o,
    output wire [11:0]              mark_tag_o,
    output reg  [15:0]              done_o,
    output reg  [15:0]              bands_o,
    output wire                     busy_o
);
  `include "rowvit_defs.vh"
  localparam LW = $clog2(LANES);
  // From the last lane's read to its last write: pipeline, compressor flush, mask, all groups.
  localparam LATE = ROTARY != 0 ? ROTATE : 0;
  localparam DONE_LAT = DRAIN_DONE[8*GROUPS+:8] + LATE;

  // ---------------------------------------------------------------- queue of tiles
  wire [15:0]    flags = instr_i[F_FLAGS+:16];
  wire           in_s = tile_i[`T_S], in_pv = tile_i[`T_PV];
  wire           in_attn = in_s || in_pv;
  wire [`O_ALL]  in_op;
  assign in_op[`O_KIND] = in_s ? KIND_S[3:0] : in_pv ? KIND_O[3:0] : instr_i[F_MATMUL_DST+:4];
  assign in_op[`O_SHIFT] = in_s ? instr_i[F_ATTN_S_SHIFT+:6]
                         : in_pv ? instr_i[F_ATTN_PV_SHIFT+:6] : instr_i[F_MATMUL_SHIFT+:6];
  assign in_op[`O_MULT] = in_attn ? instr_i[F_ATTN_S_MULT+:16] : instr_i[F_MATMUL_THR+:16];
  assign in_op[`O_PSLOT] = instr_i[F_MATMUL_PSLOT+:8];
  assign in_op[`O_BAND_END] = !in_s;
  assign in_op[`O_DENSE] = instr_i[F_MATMUL_MASK_BANDS+:16] == 16'd0;
  assign in_op[`O_MARK] = flags[FLAG_MARK] && !flags[FLAG_VOID] && tile_i[`T_OP_LAST];
  assign in_op[`O_LAST] = !in_attn && flags[FLAG_LAST];
  assign in_op[`O_TAG] = instr_i[F_IMAGE+:12];
  assign in_op[`O_COUNT] = instr_i[F_MATMUL_COUNT+:16];
  assign in_op[`O_GATED] = ROTARY != 0 && !in_attn && flags[FLAG_GATED];
  assign in_op[`O_LATE] = ROTARY != 0 && !in_attn && (flags[FLAG_ROPE] || flags[FLAG_GATED]);
  assign in_op[`O_PLACE] = ROTARY != 0 ? instr_i[F_MATMUL_TABLE+BANK_W+:11] : 11'd0;
  wire           valid, pop;
  rowvit_fifo #(
      .WIDTH(`O_ALL_W + `T_QUEUE_W),
      .DEPTH(TILE_QUEUE)
  ) u_tiles (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(tile_valid_i), .in_ready_o(tile_ready_o), .in_data_i({in_op, tile_i[`T_QUEUE]}),
      .out_valid_o(valid), .out_ready_i(pop), .out_data_o({op_o, tile_o}), .count_o()
  );
  wire            is_null = tile_o[`T_NULL];
  wire [ROWS-1:0] rows = tile_o[`T_ROWS];
  wire [3:0]      kind = op_o[`O_KIND];

  // ---------------------------------------------------------------- lane counter (stage 0)
  reg  [DONE_LAT-1:0] delay_q;  // completion of each tile on its way to the event it causes
  reg           popped_q;
  reg           captured_q;
  reg           run_q;
  reg  [LW-1:0] lane_q;
  reg  [7:0]    sub_q;
  reg  [7:0]    last_sub_q;
  reg           stream_q;
  wire          stream   = kind == DST_STREAM[3:0];
  wire          lane_end = lane_q == LANES[LW-1:0] - 1'b1;
  wire          sub_end  = sub_q == last_sub_q;
  assign step_o  = run_q && (!stream_q || room_i);
  assign first_o = lane_q == {LW{1'b0}} && sub_q == 8'd0;
  assign last_o  = step_o && lane_end && sub_end;
  assign lane_o  = lane_q;
  assign sub_o   = sub_q;
  // A LOGITS record starts when no MARK record can come in between any more; K^T waits for V's last lines.
  reg  [7:0]    values_q;  // a tile of V has ended
  reg  [ROTATE-1:0] late_q;  // such a tile has ended: its last results, and its event, are still to come
  wire          hold     = (stream && (|delay_q || marking_i))
                           || (kind == DST_KEY[3:0] && |values_q) || |late_q[ROTATE-2:0];
  wire          hold_mark = op_o[`O_MARK] && !mark_room_i;
  // Null tiles come faster than their events leave.
  wire [3:0]    ev_count;  // without that of the cycle before
  wire          ev_room = ev_count < TILE_QUEUE[3:0] - 4'd1;
  wire          begin_tile = valid && !is_null && !run_q && (captured_q || captured_i) && !hold && !hold_mark
                             && ev_room;
  wire          null_tile  = valid && is_null && !run_q && !hold_mark && ev_room && !(|late_q);
  assign pop = last_o || null_tile;
  reg  [7:0]    last_row;
  integer       b;
  always @* begin
    last_row = 8'd0;
    for (b = 1; b < ROWS; b = b + 1) if (rows[b]) last_row = b[7:0];
  end
  // release_o comes a cycle later; CAPTURE - 1 cycles after the next tile's last scalar fires its
  // shadows are written. They are read a cycle after lane_q names the lane.
  wire          near_end = step_o && sub_end && lane_q == LANES[LW-1:0] - CAPTURE[LW-1:0] + 1'b1;
  always @(posedge clk_i) begin
    // A cycle after near_end; logits may wait for room to the last lane.
    release_o <= stream_q ? last_o : near_end;
    values_q <= {values_q[6:0], last_o && kind == DST_VALUE[3:0]};
    late_q   <= {late_q[ROTATE-2:0], pop && op_o[`O_LATE]};
    captured_q <= (captured_q || captured_i) && !begin_tile;
    run_q <= begin_tile || (run_q && !last_o);
    if (!run_q) begin  // whether a tile begins or not, which is known late
      lane_q     <= {LW{1'b0}};
      sub_q      <= 8'd0;
      last_sub_q <= stream ? tile_o[`T_GROUPS] - 8'd1 : tile_o[`T_GATHER] ? last_row : 8'd0;
      stream_q   <= stream;
    end else if (step_o) begin
      if (stream_q) begin
        sub_q <= sub_end ? 8'd0 : sub_q + 8'd1;
        if (sub_end) lane_q <= lane_q + 1'b1;
      end else begin
        lane_q <= lane_q + 1'b1;
        if (lane_end) sub_q <= sub_q + 8'd1;
      end
    end
    if (!rst_ni) begin
      release_o  <= 1'b0;
      run_q      <= 1'b0;
      captured_q <= 1'b0;
      late_q     <= {ROTATE{1'b0}};
    end
  end

  // ---------------------------------------------------------------- events
  wire        ev_valid, ev_band, ev_op, ev_mark;
  wire [15:0] ev_bandno;
  wire        ev_out = delay_q[DONE_LAT-1] && ev_valid;
  reg  [30:0] event_q;
  always @(posedge clk_i)
    event_q <= {op_o[`O_BAND_END] && !is_null, tile_o[`T_OP_LAST], op_o[`O_MARK], op_o[`O_TAG],
                tile_o[`T_BAND]};
  rowvit_fifo #(
      .WIDTH(31),
      .DEPTH(TILE_QUEUE), .NEVER_REFUSED(1)
  ) u_events (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(1'b0),
      .in_valid_i(popped_q), .in_ready_o(), .in_data_i(event_q),
      .out_valid_o(ev_valid), .out_ready_i(delay_q[DONE_LAT-1]),
      .out_data_o({ev_band, ev_op, ev_mark, mark_tag_o, ev_bandno}), .count_o(ev_count)
  );
  assign mark_o = ev_out && ev_mark;
  always @(posedge clk_i) begin
    popped_q <= pop;
    delay_q <= {delay_q[DONE_LAT-2:0], pop && (LATE == 0 || op_o[`O_LATE])};
    if (LATE != 0 && pop && !op_o[`O_LATE]) delay_q[LATE] <= 1'b1;
    if (ev_out && ev_band) bands_o <= ev_bandno + 16'd1;
    if (ev_out && ev_op) begin
      done_o  <= done_o + 16'd1;
      bands_o <= 16'd0;
    end
    if (!rst_ni) begin
      popped_q <= 1'b0;
      delay_q <= {DONE_LAT{1'b0}};
      done_o  <= 16'd0;
      bands_o <= 16'd0;
    end
  end
  assign busy_o = run_q || valid || |delay_q;
endmodule
`default_nettype wire
