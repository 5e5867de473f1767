// SPDX-License-Identifier: Apache-2.0
// Written by `python -m rowvit.hardware.generate` from the tables in host/rowvit/hardware/isa.py
// and pipeline.py, where each constant is explained. Included inside modules.
localparam ABI_VERSION = 6;
localparam [31:0] ID = 32'h524F5756;
// Instructions: F_* are the first bits of slots and fields.
localparam INSTR_W = 512, NO_DEP = 16'h8000;
localparam N_ENGINE = 6, E_LOAD = 0, E_EXEC = 1, E_DRAIN = 2, E_NORM = 3, E_SELECT = 4, E_RECV = 5;
localparam OP_HEADER = 1, OP_LOAD = 2, OP_MATMUL = 3, OP_ATTN = 4, OP_NORM = 5, OP_SELECT = 6,
           OP_RECV = 7, OP_END = 8;
localparam FLAG_SPARSE = 0, FLAG_UNSIGNED = 1, FLAG_GATHER = 2, FLAG_ONE_ROW = 3, FLAG_SET_LIVE = 4,
           FLAG_MARK = 5, FLAG_LAST = 6, FLAG_SCORE_CLEAR = 7, FLAG_SCORE = 8, FLAG_REST = 9,
           FLAG_PREVIOUS = 10, FLAG_VOID = 11, FLAG_JOIN = 12, FLAG_ROPE = 13, FLAG_GATED = 14;
localparam MAX_IMAGES = 16;
localparam F_IMAGE = 4, F_TAG = 8, F_OPCODE = 16*0, F_FLAGS = 16*1, F_CHAIN = 16*2, F_DEPS = 16*3,
           F_OPERANDS = 16*9, F_INDEX = 16*31;
localparam F_HEADER_CONFIG_HASH = 16*9, F_HEADER_ABI = 16*11, F_HEADER_FINISH = 16*12;
localparam F_LOAD_KIND = 16*9, F_LOAD_ADDRESS = 16*10, F_LOAD_DST = 16*12, F_LOAD_ROWS = 16*13,
           F_LOAD_GROUPS = 16*14, F_LOAD_MASK_BASE = 16*15, F_LOAD_BAND0 = 16*16,
           F_LOAD_MASK_HAD = 16*17;
localparam F_MATMUL_SRC_BASE = 16*9, F_MATMUL_SRC_STRIDE = 16*10, F_MATMUL_K = 16*11,
           F_MATMUL_WBASE = 16*12, F_MATMUL_GROUPS = 16*13, F_MATMUL_DST = 16*14,
           F_MATMUL_DST_BASE = 16*15, F_MATMUL_DST_STRIDE = 16*16, F_MATMUL_SHIFT = 16*17,
           F_MATMUL_PSLOT = 16*18, F_MATMUL_THR = 16*19, F_MATMUL_BAND0 = 16*20,
           F_MATMUL_BANDS = 16*21, F_MATMUL_MASK_BASE = 16*22, F_MATMUL_MASK_BANDS = 16*23,
           F_MATMUL_MASK_STRIDE = 16*24, F_MATMUL_ROWS = 16*25, F_MATMUL_COUNT = 16*26,
           F_MATMUL_TABLE = 16*27, F_MATMUL_RES_FROM = 16*28;
localparam F_ATTN_Q_BASE = 16*9, F_ATTN_Q_STRIDE = 16*10, F_ATTN_HEAD_DIM = 16*11,
           F_ATTN_GROUPS = 16*12, F_ATTN_KT_BASE = 16*13, F_ATTN_V_BASE = 16*14,
           F_ATTN_P_BASE = 16*15, F_ATTN_P_STRIDE = 16*16, F_ATTN_O_BASE = 16*17,
           F_ATTN_O_STRIDE = 16*18, F_ATTN_S_MULT = 16*19, F_ATTN_S_SHIFT = 16*20,
           F_ATTN_PV_SHIFT = 16*21, F_ATTN_TABLE = 16*22;
localparam F_NORM_KIND = 16*9, F_NORM_DIM = 16*10, F_NORM_RES_STRIDE = 16*11,
           F_NORM_DST_BASE = 16*12, F_NORM_DST_STRIDE = 16*13, F_NORM_SLOT = 16*14,
           F_NORM_SHIFT = 16*15, F_NORM_RES_BASE = 16*16;
localparam F_SELECT_KEEP = 16*9, F_SELECT_THRESHOLD = 16*10, F_SELECT_TABLE = 16*12,
           F_SELECT_FROM = 16*13, F_SELECT_TO = 16*14;
localparam F_RECV_ROWS = 16*9, F_RECV_PREFIX = 16*10, F_RECV_ROW_WORDS = 16*11,
           F_RECV_DST_BASE = 16*12, F_RECV_DST_STRIDE = 16*13;
localparam DST_TOKEN = 0, DST_HIDDEN = 1, DST_KEY = 2, DST_VALUE = 3, DST_RESIDUAL = 4,
           DST_STREAM = 5;
localparam KIND_S = 6, KIND_O = 7;  // of the drain, behind DST_*
localparam LOADKIND_WEIGHT = 0, LOADKIND_PARAM = 1, LOADKIND_NORM = 2, LOADKIND_RESIDUAL = 3,
           LOADKIND_ROTATION = 4, LOADKIND_PLACE = 5;
localparam NORMKIND_LAYERNORM = 0, NORMKIND_DUMP = 1, NORMKIND_TOKENS = 2;
// Queues: slots that a queue holds, and the queue that each engine's operations come from.
localparam N_QUEUE = 5, Q_LOAD = 0, Q_EXEC = 1, Q_NORM = 2, Q_SELECT = 3, Q_RECV = 4;
localparam [39:0] QUEUE_SLOTS = {8'd14, 8'd15, 8'd17, 8'd29, 8'd18};  // queue 0 lowest
localparam MAX_SLOTS = 29;
localparam [47:0] ENGINE_QUEUE = {8'd4, 8'd3, 8'd2, 8'd1, 8'd1, 8'd0};  // engine 0 lowest
// Errors, records, registers, counters.
localparam ERROR_NONE = 0, ERROR_BAD_OPCODE = 1, ERROR_ADDRESS_RANGE = 2, ERROR_BAD_HASH = 3,
           ERROR_AXI_READ = 4, ERROR_WATCHDOG = 5, ERROR_STREAM_SHORT = 6, ERROR_STREAM_LONG = 7;
localparam RECORD_LOGITS = 1, RECORD_KEPT = 2, RECORD_CHECKPOINT = 3, RECORD_MARK = 4,
           RECORD_TOKENS = 5;
localparam REG_ID = 'h00, REG_ABI = 'h04, REG_CONFIG_HASH = 'h08, REG_CAPS = 'h0C,
           REG_CONTROL = 'h10, REG_STATUS = 'h14, REG_ERROR = 'h18, REG_IRQ_ENABLE = 'h1C,
           REG_IRQ_STATUS = 'h20, REG_BASE_LO = 'h24, REG_BASE_HI = 'h28, REG_PROGRAM = 'h2C,
           REG_LENGTH = 'h30, REG_PASSES = 'h34, REG_WATCHDOG = 'h38, REG_PROGRESS0 = 'h40,
           REG_PROGRESS1 = 'h44, REG_PROGRESS2 = 'h48, REG_LIVE = 'h4C;
localparam COUNTER_BASE = 'h80, N_COUNTER = 20;
localparam CNT_CYCLES = 0, CNT_EXEC_BUSY = 1, CNT_EXEC_FIRE = 2, CNT_FIRES = 3,
           CNT_FFN2_NONZEROS = 4, CNT_PV_NONZEROS = 5, CNT_WAIT_DATA = 6, CNT_WAIT_DRAIN = 7,
           CNT_WAIT_STEAL = 8, CNT_DRAIN_BUSY = 9, CNT_LOAD_BUSY = 10, CNT_LOAD_WAIT = 11,
           CNT_AXI_BEATS = 12, CNT_W2_FETCHED = 13, CNT_W2_ROWS = 14, CNT_NORM_BUSY = 15,
           CNT_SOFTMAX_BUSY = 16, CNT_SELECT_BUSY = 17, CNT_RECV_WORDS = 18, CNT_SEND_WORDS = 19;
// Depths, and lengths of pipelines.
localparam QUEUE_DEPTH = 16, FETCHES = 7, PROGRAM_FIFO = 32, LOAD_FIFO = 128, BURSTS = 8,
           BURST_WORDS = 16, TILE_QUEUE = 8, CAPTURE = 9, MAX_GROUPS = 6, ROTATE = 4, NORM_ROWS = 4;
localparam [55:0] DRAIN_DONE = {8'd70, 8'd62, 8'd38, 8'd34, 8'd30, 8'd26, 8'd22};  // 0 groups lowest
