// SPDX-License-Identifier: Apache-2.0
// fifo and skid_buffer next to the plainest queue there is: a shift register with a count. Proved by
// induction: the same handshakes and data in every cycle, whatever the neighbours and clear_i do.
// The test ties the probe wires to the module's registers; the invariants speak about those.
`default_nettype none

module plain_queue #(
    parameter WIDTH = 4,
    parameter DEPTH = 4
) (
    input  wire                   clk_i,
    input  wire                   clear_i,
    input  wire                   in_valid_i,
    input  wire                   in_ready_i,
    input  wire [WIDTH-1:0]       in_data_i,
    input  wire                   out_valid_i,
    input  wire                   out_ready_i,
    input  wire [WIDTH-1:0]       out_data_i,
    output reg  [2:0]             count_o,
    output reg  [WIDTH*DEPTH-1:0] words_o
);
    wire push = in_valid_i && count_o < DEPTH;
    wire pop = out_ready_i && count_o > 0;
    wire [2:0] left = count_o - pop;

    always @(posedge clk_i) begin
        words_o <= pop ? words_o >> WIDTH : words_o;
        if (push) words_o[WIDTH*left +: WIDTH] <= in_data_i;
        count_o <= clear_i ? 3'd0 : left + push;
    end

    always @* begin
        assert (count_o <= DEPTH);
        assert (in_ready_i == (count_o < DEPTH));
        assert (out_valid_i == (count_o > 0));
        if (out_valid_i) assert (out_data_i == words_o[WIDTH-1:0]);
    end
endmodule

module rowvit_skid_buffer_proof (
    input wire       clk_i,
    input wire       clear_i,
    input wire       in_valid_i,
    input wire [3:0] in_data_i,
    input wire       out_ready_i
);
    wire in_ready, out_valid;
    wire [3:0] out_data, skid_data;
    wire [2:0] count;
    wire [7:0] words;

    rowvit_skid_buffer #(.WIDTH(4)) u_dut (
        .clk_i(clk_i), .rst_ni(1'b1), .clear_i(clear_i), .in_valid_i(in_valid_i),
        .in_ready_o(in_ready), .in_data_i(in_data_i), .out_valid_o(out_valid),
        .out_ready_i(out_ready_i), .out_data_o(out_data)
    );
    plain_queue #(.WIDTH(4), .DEPTH(2)) u_plain (
        .clk_i(clk_i), .clear_i(clear_i), .in_valid_i(in_valid_i), .in_ready_i(in_ready),
        .in_data_i(in_data_i), .out_valid_i(out_valid), .out_ready_i(out_ready_i),
        .out_data_i(out_data), .count_o(count), .words_o(words)
    );

    always @* if (count == 2) assert (skid_data == words[7:4]);
endmodule

module rowvit_fifo_proof (
    input wire       clk_i,
    input wire       clear_i,
    input wire       in_valid_i,
    input wire [3:0] in_data_i,
    input wire       out_ready_i
);
    wire in_ready, out_valid;
    wire [3:0] out_data, mem0, mem1, mem2, mem3;
    wire [2:0] count, count_dut;
    wire [1:0] read, write;
    wire [15:0] words;
    wire [15:0] mem = {mem3, mem2, mem1, mem0};

    rowvit_fifo #(.WIDTH(4), .DEPTH(4)) u_dut (
        .clk_i(clk_i), .rst_ni(1'b1), .clear_i(clear_i), .in_valid_i(in_valid_i),
        .in_ready_o(in_ready), .in_data_i(in_data_i), .out_valid_o(out_valid),
        .out_ready_i(out_ready_i), .out_data_o(out_data), .count_o(count_dut)
    );
    plain_queue #(.WIDTH(4), .DEPTH(4)) u_plain (
        .clk_i(clk_i), .clear_i(clear_i), .in_valid_i(in_valid_i), .in_ready_i(in_ready),
        .in_data_i(in_data_i), .out_valid_i(out_valid), .out_ready_i(out_ready_i),
        .out_data_i(out_data), .count_o(count), .words_o(words)
    );

    integer i;
    always @* begin
        assert (count_dut == count);
        assert (write == read + count[1:0]);
        for (i = 0; i < 4; i = i + 1)
            if (i < count) assert (mem[4 * ((read + i) & 3) +: 4] == words[4*i +: 4]);
    end
endmodule

`default_nettype wire
