// SPDX-License-Identifier: Apache-2.0
// FIFO in distributed RAM: the head of the queue is at out_data_o before it is taken.
// Throughput: one word in and one out per cycle. Latency: one cycle from in to out.
`default_nettype none

module rowvit_fifo #(
    // Bits per word.
    parameter WIDTH = 8,
    // Words; a power of two, at least 2.
    parameter DEPTH = 4,
    // 1: who writes knows that there is room, and leaves in_ready_o open; simulations and proofs check it.
    parameter NEVER_REFUSED = 0
) (
    input  wire                     clk_i,
    input  wire                     rst_ni,
    input  wire                     clear_i,
    input  wire                     in_valid_i,
    output wire                     in_ready_o,
    input  wire [WIDTH-1:0]         in_data_i,
    output wire                     out_valid_o,
    input  wire                     out_ready_i,
    output wire [WIDTH-1:0]         out_data_o,
    output wire [$clog2(DEPTH):0]   count_o
);
  localparam AW = $clog2(DEPTH);

  generate
    if (DEPTH < 2 || (1 << AW) != DEPTH) begin : g_bad_depth
      illegal_parameter_fifo_depth_must_be_a_power_of_two_from_2_on u_bad();
    end
  endgenerate

  (* ram_style = "distributed" *)
  reg [WIDTH-1:0] mem_q [0:DEPTH-1];
  reg [AW-1:0] write_q, read_q;
  reg [AW:0] count_q;

  wire push = in_valid_i && in_ready_o;
  wire pop = out_valid_o && out_ready_i;

  assign in_ready_o = !count_q[AW];
  assign out_valid_o = count_q != 0;
  assign out_data_o = mem_q[read_q];
  assign count_o = count_q;

  always @(posedge clk_i) begin
    if (push) mem_q[write_q] <= in_data_i;
  end

  // No enables, which would be control sets of a few flip-flops each. Whether a word leaves is known late:
  // it chooses between sums.
  localparam [AW-1:0] ONE = 1;
  wire [AW:0] more = count_q + 1'b1;
  wire [AW:0] less = count_q - 1'b1;
  wire [AW-1:0] next = read_q + ONE;
  always @(posedge clk_i) begin
    write_q <= write_q + ({AW{push}} & ONE);
    read_q <= (next & {AW{pop}}) | (read_q & {AW{!pop}});
    count_q <= (more & {AW + 1{push && !pop}}) | (less & {AW + 1{pop && !push}})
             | (count_q & {AW + 1{push == pop}});
    if (!rst_ni || clear_i) begin
      write_q <= 0;
      read_q <= 0;
      count_q <= 0;
    end
  end

`ifdef ROWVIT_ASSERT
  generate
    if (NEVER_REFUSED != 0) begin : g_assert
      reg reset_q;  // before the first reset nothing holds
      initial reset_q = 1'b0;
      always @(posedge clk_i) begin : never_refused
        reset_q <= reset_q || !rst_ni;
`ifdef FORMAL
        if (rst_ni) assert (!in_valid_i || in_ready_o);
`else
        if (reset_q && rst_ni && in_valid_i && !in_ready_o) $fatal(1, "a word is refused");
`endif
      end
    end
  endgenerate
`endif
endmodule

`default_nettype wire
