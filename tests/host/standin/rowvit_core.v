// SPDX-License-Identifier: Apache-2.0
// Stands in for the core in tests of host software. While PASSES is 0 it loops the input stream
// back; the last word's TKEEP is PROGRAM[7:0]. Started, it takes one packet per image and answers with the LENGTH
// bytes at BASE as one packet. WATCHDOG = 1 makes it hang, 3 breaks an assertion, a read error makes error 4.
`default_nettype none
module rowvit_core #(
    parameter [31:0] CONFIG_HASH = 0,
    parameter ROWS = 2, GROUPS = 1, LANES = 16, WEIGHT_DEPTH = 512, TOKEN_DEPTH = 2048,
    parameter RESIDUAL_DEPTH = 1024, MAX_TOKENS = 64, MAX_DIM = 256, PARAM_SLOTS = 4,
    parameter NORM_SLOTS = 2, MASK_DEPTH = 64, PORT_BITS = 64, ROTARY_TOKENS = 0,
    parameter USE_DSP = 0, RAM_STYLE = "auto"
) (
    input  wire         clk_i, rst_ni, start_i, reset_i,
    input  wire [63:0]  base_i,
    input  wire [31:0]  program_i, length_i,
    input  wire [15:0]  passes_i,
    input  wire [31:0]  watchdog_i,
    output wire         busy_o, pass_done_o, error_valid_o,
    output wire [7:0]   error_code_o,
    output wire [23:0]  error_info_o,
    output wire [95:0]  done_o,
    output wire [15:0]  live_o,
    output wire [639:0] counters_o,
    output wire         req0_valid_o,
    input  wire         req0_ready_i,
    output wire [63:0]  req0_addr_o,
    output wire [31:0]  req0_bytes_o,
    input  wire         rsp0_valid_i,
    output wire         rsp0_ready_o,
    input  wire [PORT_BITS-1:0] rsp0_data_i,
    output wire         req1_valid_o,
    input  wire         req1_ready_i,
    output wire [63:0]  req1_addr_o,
    output wire [31:0]  req1_bytes_o,
    input  wire         rsp1_valid_i,
    output wire         rsp1_ready_o,
    input  wire [PORT_BITS-1:0] rsp1_data_i,
    input  wire         reader_busy_i, reader_beat_i, reader_error_i,
    output wire         reader_clear_o,
    input  wire [63:0]  s_axis_tdata,
    input  wire         s_axis_tvalid,
    output wire         s_axis_tready,
    input  wire         s_axis_tlast,
    output wire [63:0]  m_axis_tdata,
    output wire [7:0]   m_axis_tkeep,
    output wire         m_axis_tvalid,
    input  wire         m_axis_tready,
    output wire         m_axis_tlast
);
    `include "rowvit_defs.vh"
    localparam LOOP = 0, TAKE = 1, ASK = 2, ANSWER = 3;
    reg [1:0] state_q;
    reg [15:0] left_q;
    reg [31:0] words_q, cycles_q, beats_q, received_q, sent_q;

    wire hang = watchdog_i == 1;
    wire packet = s_axis_tvalid && s_axis_tready && s_axis_tlast;
    wire answered = m_axis_tvalid && m_axis_tready && m_axis_tlast;

    always @(posedge clk_i) begin
        if (!rst_ni || reset_i) begin
            state_q <= LOOP;
            {cycles_q, beats_q, received_q, sent_q} <= 0;
        end else begin
            if (busy_o) cycles_q <= cycles_q + 1;
            if (reader_beat_i) beats_q <= beats_q + 1;
            if (s_axis_tvalid && s_axis_tready) received_q <= received_q + 1;
            if (m_axis_tvalid && m_axis_tready) sent_q <= sent_q + 1;
            case (state_q)
                LOOP: if (start_i) begin
                    state_q <= TAKE;
                    left_q <= passes_i;
                    {cycles_q, beats_q, received_q, sent_q} <= 0;
                end
                TAKE: if (packet) begin
                    state_q <= ASK;
                    words_q <= length_i >> 3;
                end
                ASK: if (req0_valid_o && req0_ready_i) state_q <= ANSWER;
                default: begin
                    if (m_axis_tvalid && m_axis_tready) words_q <= words_q - 1;
                    if (answered) left_q <= left_q - 1;
                    if (answered) state_q <= left_q == 1 ? LOOP : TAKE;
                    if (reader_error_i) state_q <= LOOP;
                end
            endcase
        end
    end

`ifdef ROWVIT_ASSERT
    always @(posedge clk_i) begin : never_three
        if (rst_ni && watchdog_i == 3) $fatal(1, "the watchdog is three");
    end
`endif

    assign busy_o = state_q != LOOP;
    assign pass_done_o = answered && busy_o;
    assign error_valid_o = reader_error_i;
    assign error_code_o = ERROR_AXI_READ;
    assign error_info_o = 0;
    assign done_o = 0;
    assign live_o = left_q;
    assign counters_o = sent_q << 32*CNT_SEND_WORDS | received_q << 32*CNT_RECV_WORDS
        | beats_q << 32*CNT_AXI_BEATS | cycles_q << 32*CNT_CYCLES;
    assign req0_valid_o = state_q == ASK && !hang;
    assign req0_addr_o = base_i;
    assign req0_bytes_o = length_i;
    assign rsp0_ready_o = state_q == ANSWER && m_axis_tready;
    assign req1_valid_o = 0;
    assign req1_addr_o = 0;
    assign req1_bytes_o = 0;
    assign rsp1_ready_o = 0;
    assign reader_clear_o = reset_i;

    wire loop = state_q == LOOP && passes_i == 0;
    assign s_axis_tready = loop ? m_axis_tready : state_q == TAKE;
    assign m_axis_tvalid = loop ? s_axis_tvalid : state_q == ANSWER && rsp0_valid_i;
    assign m_axis_tdata = loop ? s_axis_tdata : rsp0_data_i;
    assign m_axis_tlast = loop ? s_axis_tlast : words_q == 1;
    assign m_axis_tkeep = loop && s_axis_tlast ? program_i[7:0] : 8'hFF;
endmodule
`default_nettype wire
