// SPDX-License-Identifier: Apache-2.0
// Written by `python -m rowvit.hardware.generate` from host/rowvit/hardware/buses.py. Included
// before modules, as ports need it. A macro is a range of bits: x[`T_WBASE] is a field of a tile.
// Names in it, such as ROWS, are the module's parameters. *_ALL is a whole vector, *_W a width.
`ifndef ROWVIT_BUSES_VH
`define ROWVIT_BUSES_VH

// a tile, from exec to all that take it
`define T_SHARED 0  // all groups take group 0's scalars
`define T_SPARSE 1  // rows are lists of non-zeros
`define T_WBASE 17:2  // weight line of k = 0
`define T_PV 18  // P V
`define T_NULL 19  // nothing to do: an operation without bands
`define T_OP_LAST 20  // last one of its operation
`define T_GROUPS 28:21  // groups that take part
`define T_ROWS ROWS+28:29  // rows that exist
`define T_BAND ROWS+44:ROWS+29
`define T_DST ROWS+60:ROWS+45  // where its results go: token memory word, line or residual address
`define T_GATHER ROWS+61  // rows come from the selection table
`define T_S_FIRST ROWS+62  // S: first one of its band
`define T_S_LAST ROWS+63  // S: last one of its band
`define T_TOKEN ROWS+79:ROWS+64  // S: token of lane 0
`define T_MASK_END ROWS+80  // last band of a row tile, whose mask is written
`define T_MASK ROWS+96:ROWS+81  // mask word of group 0
`define T_RES_SRC 17*ROWS+96:ROWS+97  // gather: residual address of each row before
`define T_BANK 17*ROWS+BANK_W*ROWS+96:17*ROWS+97  // bank in which each row lies
`define T_S 17*ROWS+BANK_W*ROWS+97  // S = Q K^T
`define T_UNSIGNED 17*ROWS+BANK_W*ROWS+98  // scalars are uint8
`define T_COUNT 17*ROWS+BANK_W*ROWS+109:17*ROWS+BANK_W*ROWS+99  // scalars of a row, or segments
`define T_ADDR 17*ROWS+BANK_W*ROWS+16*ROWS*GROUPS+109:17*ROWS+BANK_W*ROWS+110  // word of each row and group
`define T_ISSUE ROWS+28:0  // what issue takes
`define T_ISSUE_W (ROWS+29)
`define T_DRAIN 17*ROWS+BANK_W*ROWS+97:18  // what the drain takes
`define T_DRAIN_W (17*ROWS+BANK_W*ROWS+80)
`define T_QUEUE 17*ROWS+BANK_W*ROWS+96:19  // what the drain keeps
`define T_QUEUE_W (17*ROWS+BANK_W*ROWS+78)
`define T_ALL 17*ROWS+BANK_W*ROWS+16*ROWS*GROUPS+109:0
`define T_ALL_W (17*ROWS+BANK_W*ROWS+16*ROWS*GROUPS+110)

// what the drain keeps of a tile's instruction
`define O_KIND 3:0  // DST_*, or KIND_S or KIND_O
`define O_SHIFT 9:4  // of the requantisation
`define O_MULT 25:10  // multiplier of S, or threshold of HIDDEN
`define O_PSLOT 33:26  // parameter slot
`define O_BAND_END 34  // its last lane ends a band
`define O_DENSE 35  // HIDDEN: plain words, no mask
`define O_MARK 36  // a MARK record follows
`define O_LAST 37  // its record ends the pass
`define O_TAG 49:38  // tag and image, for records
`define O_COUNT 65:50  // logits of the tile
`define O_LATE 66  // pairs of lanes are rotated or gated
`define O_GATED 67  // they are a gate and what it lets through
`define O_PLACE 78:68  // ROPE: band of row 0's place
`define O_ALL 78:0
`define O_ALL_W (79)

// bias and multiplier of a lane, from load_engine to drain
`define PW_GROUP 7:0
`define PW_SLOT 15:8
`define PW_LANE 23:16
`define PW_DATA 71:24  // {mult[47:32], bias[31:0]}
`define PW_ALL 71:0
`define PW_ALL_W (72)

// the drain's write to a line of weight memory: every eight lanes are ~clear
`define WW_LINE AW-1:0
`define WW_BE AW+LANES-1:AW  // lanes that are written
`define WW_CLEAR AW+64*GROUPS+LANES-1:AW+LANES  // bits that are 0
`define WW_ALL AW+64*GROUPS+LANES-1:0
`define WW_ALL_W (AW+64*GROUPS+LANES)

// S, a token of all rows and groups per cycle, from drain to softmax
`define S_TOKEN 15:0
`define S_FIRST 16  // first of its band
`define S_LAST 17  // last of its band
`define S_DATA 12*ROWS*GROUPS+17:18
`define S_ALL 12*ROWS*GROUPS+17:0
`define S_ALL_W (12*ROWS*GROUPS+18)

// P, a lane of a segment of all rows and groups, from softmax to the drain's compressors
`define P_DATA 8*ROWS*GROUPS-1:0
`define P_KEEP 9*ROWS*GROUPS-1:8*ROWS*GROUPS  // it is not 0
`define P_BASE 16*GROUPS+9*ROWS*GROUPS-1:9*ROWS*GROUPS  // word of the segment, with its first lane
`define P_ALL 16*GROUPS+9*ROWS*GROUPS-1:0
`define P_ALL_W (16*GROUPS+9*ROWS*GROUPS)

// an entry of the table of rotations, or a place, from load_engine to drain
`define RO_PLACE 0  // a place
`define RO_ADDRESS 16:1
`define RO_DATA 48:17
`define RO_ALL 48:0
`define RO_ALL_W (49)

// a place that moves as tokens are dropped, from select to drain
`define MV_FROM 15:0  // read in this cycle
`define MV_TO 31:16  // written with the valid, two cycles later
`define MV_ALL 31:0
`define MV_ALL_W (32)

// what happens in a cycle, a bit for each counter that counts cycles or words
`define E_EXEC_BUSY 0
`define E_EXEC_FIRE 1
`define E_WAIT_DATA 2
`define E_WAIT_DRAIN 3
`define E_WAIT_STEAL 4
`define E_DRAIN_BUSY 5
`define E_LOAD_BUSY 6
`define E_LOAD_WAIT 7
`define E_AXI_BEATS 8
`define E_NORM_BUSY 9
`define E_SOFTMAX_BUSY 10
`define E_SELECT_BUSY 11
`define E_RECV_WORDS 12
`define E_SEND_WORDS 13
`define E_ALL 13:0
`define E_ALL_W (14)

`endif
