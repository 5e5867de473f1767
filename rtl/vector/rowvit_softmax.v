// SPDX-License-Identifier: Apache-2.0
// Softmax between S = Q K^T and O = P V (docs/numerics.md, sections 5 and 7), for ROWS rows of
// GROUPS heads at once (lane r * GROUPS + g). Pass 1, as S drains: store it and find the maxima.
// Pass 2, when the band is complete: exponentials, which the drain compresses, and their sums, then
// the reciprocals. In a pruning layer, pass 3 over band 0: row 0's probabilities are added to
// the token scores, one head after the other.
// Throughput: one token per cycle and lane; a band takes LANES * token tiles + 24 cycles, pass 3
// (live + 10) * heads, if the drain's words leave them the token memory. Two S buffers: band i + 2 may
// come when band i's results have been used.
`default_nettype none

module rowvit_softmax #(
    // Rows of a band.
    parameter ROWS = 2,
    // Lane groups.
    parameter GROUPS = 3,
    // Lanes of a group.
    parameter LANES = 64,
    // Tokens of an image, at most; from LANES to 1024, as P V sums.
    parameter MAX_TOKENS = 320
) (
    input  wire                        clk_i,
    input  wire                        rst_ni,
    // Start of an operation; its settings stay until its last band is done.
    input  wire                        op_start_i,
    input  wire [15:0]                 cfg_live_i,
    input  wire [7:0]                  cfg_groups_i,
    input  wire [15:0]                 cfg_p_base_i,
    input  wire [15:0]                 cfg_p_stride_i,
    input  wire                        cfg_score_i,
    input  wire                        cfg_score_clear_i,
    input  wire [15:0]                 cfg_table_i,  // entry of token 0 in the score table
    // S, a token of all lanes per cycle; tokens beyond the live ones are ignored.
    input  wire                        s_valid_i,
    input  wire [15:0]                 s_token_i,
    input  wire                        s_first_i,
    input  wire                        s_last_i,
    input  wire [12*ROWS*GROUPS-1:0]   s_data_i,
    // P: a lane of a segment of all rows and groups (rowvit_drain_words.v).
    output wire [ROWS-1:0]             p_feed_o,
    output wire [8*ROWS*GROUPS-1:0]    p_data_o,
    output wire [ROWS*GROUPS-1:0]      p_keep_o,
    output wire [16*GROUPS-1:0]        p_base_o,
    input  wire [ROWS*GROUPS-1:0]      p_closed_i,
    input  wire                        p_idle_i,
    // Bands whose P, reciprocals and scores are complete.
    output reg  [15:0]                 bands_o,
    // Reciprocals of the last two bands, by parity.
    input  wire                        recip_band_i,
    output wire [17*ROWS*GROUPS-1:0]   recip_r_o,
    output wire [5*ROWS*GROUPS-1:0]    recip_n_o,
    // Token scores, one cycle; not while they are being made.
    input  wire                        score_read_i,
    input  wire [15:0]                 score_addr_i,
    output wire                        score_ready_o,
    output reg  [23:0]                 score_data_o,
    output wire                        busy_o
);
  localparam N = ROWS * GROUPS;
  localparam SEGW = 1 + LANES / 8;
  localparam LW = $clog2(LANES);
  localparam SUM_W = $clog2(255 * MAX_TOKENS + 1);
  localparam TW = $clog2(MAX_TOKENS);
  localparam AW = $clog2(2 * MAX_TOKENS);
  localparam [AW-1:0] ODD = MAX_TOKENS[AW-1:0];
  // Where there are many lanes, LUTs are scarcer than block RAM, whose depth is a power of two.
  localparam S_DEPTH = N > 12 ? 1 << AW : 2 * MAX_TOKENS;

  generate
    if (MAX_TOKENS < LANES || MAX_TOKENS > 1024) begin : g_bad_tokens
      illegal_parameter_softmax_max_tokens_must_be_from_lanes_to_1024 u_bad();
    end
  endgenerate

  // ---------------------------------------------------------------- pass 1
  reg  odd_in_q;   // parity of the band that arrives
  reg  pending_q;  // a complete band waits
  // S is written from registers, those of the address per row.
  wire s_live = s_valid_i && s_token_i < cfg_live_i;
  wire s_end = s_valid_i && s_last_i;
  wire [AW-1:0] s_addr = {{(AW - TW){1'b0}}, s_token_i[TW-1:0]} + (odd_in_q ? ODD : {AW{1'b0}});
  reg  s_end_q, s_first_q;
  reg  [12*N-1:0] s_data_q;
  always @(posedge clk_i) begin
    s_end_q <= s_end;
    s_first_q <= s_first_i;
    s_data_q <= s_data_i;
    if (!rst_ni) s_end_q <= 1'b0;
  end

  wire [ROWS:0]  en;  // all the same

  // ---------------------------------------------------------------- sequence
  localparam S_IDLE = 3'd0, S_SEND = 3'd1, S_FLUSH = 3'd2, S_RECIP = 3'd3, S_LOAD = 3'd4,
             S_SCORE = 3'd5, S_SCORED = 3'd6;
  reg [2:0]  state_q;
  reg [15:0] token_q;   // token whose S is addressed
  reg        recip_q;   // reciprocals are ready
  reg [7:0]  head_q;    // pass 3: group
  wire       odd = bands_o[0];
  wire       start = state_q == S_IDLE && pending_q;
  wire       sending = state_q == S_SEND || state_q == S_SCORE;
  wire       score_pass = state_q == S_SCORE || state_q == S_SCORED;
  wire [15:0] next = token_q + 16'd1;
  wire       send_end = next >= cfg_live_i && (score_pass || next[LW-1:0] == 0);
  wire       moving;    // something is in the pipeline behind S
  reg        words_out_q; // all words of P had left, a cycle ago
  // The last e goes into the sums; then the reciprocals start.
  wire       recip_next;
  wire [N:0] recip_start;
  rowvit_copies #(.N(N + 1)) u_recip_start (.clk_i(clk_i), .d_i(recip_next), .q_o(recip_start));
  wire [N-1:0] recip_done;
  wire       score_band = cfg_score_i && bands_o == 16'd0;
  wire       head_end = head_q + 8'd1 >= cfg_groups_i;
  wire       scoring;   // something is in the score pipeline
  wire       band_done = (state_q == S_RECIP && recip_q && words_out_q && !score_band)
      || (state_q == S_SCORED && !scoring && head_end);
  assign busy_o = state_q != S_IDLE || pending_q;

  always @(posedge clk_i) begin
    odd_in_q <= (odd_in_q ^ s_end) && !op_start_i;
    pending_q <= s_end_q || (pending_q && !start);
    recip_q <= !recip_start[N] && (recip_q || &recip_done);

    case (state_q)
      S_IDLE: if (pending_q) state_q <= S_SEND;
      S_SEND: if (en[ROWS] && send_end) state_q <= S_FLUSH;
      S_FLUSH: if (!moving) state_q <= S_RECIP;
      S_RECIP: if (recip_q && words_out_q) state_q <= score_band ? S_LOAD : S_IDLE;
      S_LOAD: state_q <= S_SCORE;
      S_SCORE: if (en[ROWS] && send_end) state_q <= S_SCORED;
      default: if (!scoring) state_q <= head_end ? S_IDLE : S_LOAD;
    endcase
    if (start || state_q == S_LOAD) begin
      token_q <= 16'd0;
    end else if (sending && en[ROWS]) begin
      token_q <= next;
    end
    if (start) head_q <= 8'd0;
    else if (state_q == S_SCORED && !scoring) head_q <= head_q + 8'd1;
    if (band_done) bands_o <= bands_o + 16'd1;

    if (op_start_i) bands_o <= 16'd0;
    if (!rst_ni) begin
      state_q <= S_IDLE;
      odd_in_q <= 1'b0;
      pending_q <= 1'b0;
      bands_o <= 16'd0;
    end
  end

  // ---------------------------------------------------------------- pipeline of passes 2 and 3
  // valid_q: S read, distance, e. It stalls while e would end a segment of which the one before has not
  // left in some lane, and for a cycle more: what moves is known a cycle ahead, with a copy for each row.
  reg [2:0] valid_q;
  reg [1:0] live_q;
  reg       feeding_q;  // an e waits for its lane: valid_q[2], but not in pass 3
  reg  [LW-1:0] lane_q;
  wire [ROWS:0] feed;   // the segments take their e
  wire feeding_d = rst_ni && (en[ROWS] ? valid_q[1] && !score_pass : feeding_q);
  wire [LW-1:0] lane_d = start ? {LW{1'b0}} : lane_q + {{(LW - 1){1'b0}}, feed[ROWS]};
  wire go_d = !(&lane_d) || p_closed_i == {N{1'b0}};
  rowvit_copies #(.N(ROWS + 1)) u_feed (.clk_i(clk_i), .d_i(feeding_d && go_d), .q_o(feed));
  rowvit_copies #(.N(ROWS + 1)) u_en (.clk_i(clk_i), .d_i(!feeding_d || go_d), .q_o(en));
  assign moving = valid_q != 3'd0;
  assign recip_next = state_q == S_FLUSH && en[ROWS] && valid_q == 3'b100;
  always @(posedge clk_i) begin
    feeding_q <= feeding_d;
    lane_q <= lane_d;
    if (en[ROWS]) begin
      valid_q <= {valid_q[1:0], sending};
      live_q <= {live_q[0], token_q < cfg_live_i};
    end
    if (!rst_ni) valid_q <= 3'd0;
  end

  // Addresses of the segments: group_q[g] is g strides, settled long before the first band is complete.
  reg [16*(GROUPS+1)-1:0] group_q;
  reg [16*GROUPS-1:0]     base_q;
  reg [15:0]              band_q;  // address of the band
  reg                     start_q;
  assign p_base_o = base_q;
  genvar g, r;
  generate
    for (g = 0; g <= GROUPS; g = g + 1) begin : g_group
      always @(posedge clk_i) begin
        group_q[16*g+:16] <= g == 0 ? 16'd0
            : group_q[16*(g == 0 ? 0 : g - 1)+:16] + cfg_p_stride_i;
      end
      if (g < GROUPS) begin : g_base
        always @(posedge clk_i) begin
          if (start_q) base_q[16*g+:16] <= band_q + group_q[16*g+:16];
          else if (feed[ROWS] && (&lane_q)) base_q[16*g+:16] <= base_q[16*g+:16] + SEGW[15:0];
        end
      end
    end
  endgenerate
  always @(posedge clk_i) begin
    start_q <= start;
    band_q <= cfg_p_base_i + (odd ? group_q[16*GROUPS+:16] : 16'd0);
  end

  // ---------------------------------------------------------------- lanes
  reg               newest_q;  // parity of the band whose reciprocals were started last
  // Pass 3 needs those of band 0; nobody else reads reciprocals then.
  wire              previous = recip_band_i != newest_q && state_q != S_LOAD;
  wire [8*N-1:0]    e;
  wire [5*N-1:0]    octave;
  always @(posedge clk_i) begin
    if (recip_start[N]) newest_q <= odd;
  end
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      (* keep = "true" *) reg s_live_q;
      (* keep = "true" *) reg [AW-1:0] s_addr_q;
      (* keep = "true" *) always @(posedge clk_i) begin
        s_live_q <= s_live;
        s_addr_q <= s_addr;
        if (!rst_ni) s_live_q <= 1'b0;
      end

      for (g = 0; g < GROUPS; g = g + 1) begin : g_lane
        localparam I = r * GROUPS + g;
        // S of both buffers. Its address has a register per lane: it has many loads.
        reg [11:0] s_read_q;
        (* keep = "true" *) reg [AW-1:0] addr_q;
        (* keep = "true" *) always @(posedge clk_i) begin
          if (start || state_q == S_LOAD) addr_q <= odd ? ODD : {AW{1'b0}};
          else if (sending && en[r]) addr_q <= addr_q + 1'b1;
        end
        // Attributes are literals: tools drop the value of an expression of strings.
        if (N > 12) begin : g_block
          (* ram_style = "block" *) reg [11:0] s_mem_q [0:S_DEPTH-1];
          always @(posedge clk_i) begin
            if (s_live_q) s_mem_q[s_addr_q] <= s_data_q[12*I+:12];
            if (sending && en[r]) s_read_q <= s_mem_q[addr_q];
          end
        end else begin : g_distributed
          (* ram_style = "distributed" *) reg [11:0] s_mem_q [0:S_DEPTH-1];
          always @(posedge clk_i) begin
            if (s_live_q) s_mem_q[s_addr_q] <= s_data_q[12*I+:12];
            if (sending && en[r]) s_read_q <= s_mem_q[addr_q];
          end
        end

        rowvit_softmax_lane #(
            .SUM_W(SUM_W)
        ) u_lane (
            .clk_i(clk_i), .rst_ni(rst_ni),
            .s_valid_i(s_live_q), .s_first_i(s_first_q), .s_data_i(s_data_q[12*I+:12]),
            .start_i(start), .en_i(en[r]), .s_read_i(s_read_q), .live_i(live_q[1]),
            .score_i(r == 0 && score_pass),
            .e_o(e[8*I+:8]), .keep_o(p_keep_o[I]), .octave_o(octave[5*I+:5]), .feed_i(feed[r]),
            .recip_start_i(recip_start[I]), .recip_done_o(recip_done[I]), .previous_i(previous),
            .n_o(recip_n_o[5*I+:5]), .r_o(recip_r_o[17*I+:17])
        );
      end
    end
  endgenerate
  assign p_feed_o = feed[ROWS-1:0];
  assign p_data_o = e;
  always @(posedge clk_i) words_out_q <= p_idle_i;

  // ---------------------------------------------------------------- token scores
  // Behind e: the head's e, the product (three stages), the shift; then the sum is written.
  localparam MUL_A = 18, MUL_B = 9;
  reg  [4:0]             stage_q;
  reg  [7:0]             head_e_q, head_e;
  reg  [4:0]             head_octave_q, head_octave;
  reg  [3:0]             head_n_q, head_n;  // n is at most 19: n - 4 is right without bit 4
  reg  [16:0]            head_r_q, head_r;
  reg  [23:0]            share_q;
  wire [MUL_A+MUL_B-1:0] product;
  // The shift of stage 1 to 3: at most 31, which leaves nothing of a product.
  reg  [14:0]            down_q;
  wire [5:0]             down = {1'b0, head_octave_q} + {2'd0, head_n_q - 4'd4};
  assign scoring = moving || stage_q != 5'd0;
  integer h;
  always @* begin
    head_e = 8'd0;
    head_octave = 5'd0;
    head_n = 4'd0;
    head_r = 17'd0;
    for (h = 0; h < GROUPS; h = h + 1) begin
      if (head_q == h[7:0]) begin
        head_e = head_e | e[8*h+:8];
        head_octave = head_octave | octave[5*h+:5];
        head_n = head_n | recip_n_o[5*h+:4];
        head_r = head_r | recip_r_o[17*h+:17];
      end
    end
  end
  rowvit_lut_mul #(
      .AW(MUL_A), .BW(MUL_B), .PER_STAGE(2)
  ) u_mul (
      .clk_i(clk_i), .en_i(score_pass), .a_i({1'b0, head_r_q}), .b_i({1'b0, head_e_q}), .p_o(product)
  );

  (* ram_style = "distributed" *) reg [23:0] score_mem_q [0:MAX_TOKENS-1];
  reg  [TW-1:0] score_read_q, score_write_q;
  wire [TW-1:0] score_addr = score_pass ? score_read_q : score_addr_i[TW-1:0];
  assign score_ready_o = !score_pass;
  wire          fresh = head_q == 8'd0 && cfg_score_clear_i;
  always @(posedge clk_i) begin
    stage_q <= {stage_q[3:0], valid_q[2] && score_pass};
    head_e_q <= head_e;
    head_octave_q <= head_octave;
    down_q <= {down_q[9:0], down[4:0] | {5{down[5]}}};
    if (state_q == S_LOAD) begin
      {head_n_q, head_r_q} <= {head_n, head_r};
      score_read_q <= cfg_table_i[TW-1:0];
      score_write_q <= cfg_table_i[TW-1:0];
    end else begin
      if (stage_q[3]) score_read_q <= score_read_q + 1'b1;
      if (stage_q[4]) score_write_q <= score_write_q + 1'b1;
    end
    share_q <= product[23:0] >> down_q[14:10];
    if (score_pass ? stage_q[3] : score_read_i) score_data_o <= score_mem_q[score_addr];
    if (stage_q[4]) score_mem_q[score_write_q] <= share_q + (fresh ? 24'd0 : score_data_o);
    if (!rst_ni) stage_q <= 5'd0;
  end
endmodule

`default_nettype wire
