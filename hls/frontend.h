// SPDX-License-Identifier: Apache-2.0
// The preprocessor as a Vitis HLS kernel: an RGB frame in, the accelerator's patches out.
// Numbers: docs/numerics.md, section 10. Packets and use: README.md.
#ifndef ROWVIT_FRONTEND_H
#define ROWVIT_FRONTEND_H

#include "ap_axi_sdata.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "hls_task.h"

namespace frontend {

constexpr int MAX_FRAME = 4095;   // pixels per side of a frame
constexpr int MAX_SIDE = 256;     // pixels per side of the network's image: two lines of 66 bits per pixel
constexpr int MAX_STRIPE = 4096;  // pixels in a row of patches, 24 bits each
constexpr int MAX_BIN = 3;        // log2 of the pixels summed per axis
constexpr int MAGIC = 0x5652;
constexpr int HEADER_WORDS = 4;
constexpr int STEP_BITS = 20;
constexpr int WEIGHT_BITS = 8;

using Word = ap_axiu<64, 0, 0, 0>;
using Pixel = ap_uint<24>;  // R in the low byte

// A packet's header.
struct Geometry {
    bool refused;  // the other fields are then meaningless
    ap_uint<12> width, height, left, top, window_width, window_height;
    ap_uint<2> bin;
    ap_uint<9> patch, grid;
    ap_uint<32> step_x, step_y;
};

// A column of one line, interpolated: sums of up to 8 pixels times weights of 256.
struct Column {
    ap_uint<19> channel[3];
};

enum Status { GOOD = 0, SHORT = 1, LONG = 2 };  // how a frame ended
using StatusCode = ap_uint<2>;

}  // namespace frontend

void rowvit_frontend(hls::stream<frontend::Word>& s_axis, hls::stream<frontend::Word>& m_axis);

#endif
