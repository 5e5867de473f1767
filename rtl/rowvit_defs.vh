// SPDX-License-Identifier: Apache-2.0
// Constants of the instruction set, registers, errors and records. Checked in the tests against
// host/rowvit/hardware/isa.py, where each is explained. Included inside modules.
localparam INSTR_W = 512;
localparam N_ENGINE = 6;
localparam E_LOAD = 0, E_EXEC = 1, E_DRAIN = 2, E_NORM = 3, E_SELECT = 4, E_RECV = 5;
localparam OP_HEADER = 1, OP_LOAD = 2, OP_MATMUL = 3, OP_ATTN = 4, OP_NORM = 5, OP_SELECT = 6,
           OP_RECV = 7, OP_END = 8;
localparam FLAG_SPARSE = 0, FLAG_UNSIGNED = 1, FLAG_GATHER = 2, FLAG_ONE_ROW = 3,
           FLAG_SET_LIVE = 4, FLAG_MARK = 5, FLAG_LAST = 6, FLAG_SCORE_CLEAR = 7, FLAG_SCORE = 8,
           FLAG_REST = 9, FLAG_PREVIOUS = 10, FLAG_VOID = 11;
localparam DST_TOKEN = 0, DST_HIDDEN = 1, DST_KEY = 2, DST_VALUE = 3, DST_RESIDUAL = 4,
           DST_STREAM = 5;
localparam LOADKIND_WEIGHT = 0, LOADKIND_PARAM = 1, LOADKIND_NORM = 2, LOADKIND_RESIDUAL = 3;
localparam NORMKIND_LAYERNORM = 0, NORMKIND_DUMP = 1;
localparam ERROR_NONE = 0, ERROR_BAD_OPCODE = 1, ERROR_ADDRESS_RANGE = 2, ERROR_BAD_HASH = 3,
           ERROR_AXI_READ = 4, ERROR_WATCHDOG = 5, ERROR_STREAM_SHORT = 6, ERROR_STREAM_LONG = 7;
localparam RECORD_LOGITS = 1, RECORD_KEPT = 2, RECORD_CHECKPOINT = 3, RECORD_MARK = 4;
localparam ABI_VERSION = 2;
localparam [31:0] ID = 32'h524F5756;
localparam NO_DEP = 16'h8000;
localparam REG_ID = 'h00, REG_ABI = 'h04, REG_CONFIG_HASH = 'h08, REG_CAPS = 'h0C,
           REG_CONTROL = 'h10, REG_STATUS = 'h14, REG_ERROR = 'h18, REG_IRQ_ENABLE = 'h1C,
           REG_IRQ_STATUS = 'h20, REG_BASE_LO = 'h24, REG_BASE_HI = 'h28, REG_PROGRAM = 'h2C,
           REG_LENGTH = 'h30, REG_IMAGES = 'h34, REG_WATCHDOG = 'h38, REG_PROGRESS0 = 'h40,
           REG_PROGRESS1 = 'h44, REG_PROGRESS2 = 'h48, REG_LIVE = 'h4C;
localparam COUNTER_BASE = 'h80, N_COUNTER = 20;
