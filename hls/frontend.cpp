// SPDX-License-Identifier: Apache-2.0
// A pipeline of four tasks. Each handles one frame and starts again; the header travels with the frame, so
// that frames of different sizes may follow each other and the next one enters while one leaves.
//
//   read_frame -> pixels -> horizontal -> columns -> vertical -> pixels -> patches
//
// No frame is ever stored, only two lines of the network's width and one row of patches.
#include "frontend.h"

namespace frontend {

// Walks along one axis: the position of the next output among the inputs, rounded to the weights' fraction
// and clamped to the inside. The position after it is computed in advance, so that a cycle only compares.
class Walk {
public:
    Walk(ap_uint<32> step, ap_uint<12> count) : m_step(step), m_last(count - 1) {
        m_exact = (step >> 1) - (1 << (STEP_BITS - 1));
        advance();
        advance();
    }
    void advance() {
        m_here = m_next;
        ap_int<48> rounded = (m_exact + (1 << (STEP_BITS - WEIGHT_BITS - 1))) >> (STEP_BITS - WEIGHT_BITS);
        ap_uint<20> end = ap_uint<20>(m_last) << WEIGHT_BITS;
        m_next = rounded < 0 ? ap_uint<20>(0) : rounded > end ? end : ap_uint<20>(rounded);
        m_exact += m_step;
    }
    // The output can be computed from inputs newest - 1 and newest.
    bool due(ap_uint<12> newest) const { return before() < newest || (before() == newest && weight() == 0); }
    // The weight of input `newest`; that of the one before it is 256 minus this.
    ap_uint<9> weight_of(ap_uint<12> newest) const {
        return before() == newest ? ap_uint<9>(1 << WEIGHT_BITS) : ap_uint<9>(weight());
    }

private:
    ap_uint<12> before() const { return m_here >> WEIGHT_BITS; }
    ap_uint<8> weight() const { return m_here(WEIGHT_BITS - 1, 0); }

    ap_uint<32> m_step;
    ap_uint<12> m_last;
    ap_int<48> m_exact = 0;
    ap_uint<20> m_here = 0, m_next = 0;
};

Geometry parse(const ap_uint<64> header[HEADER_WORDS], bool complete) {
#pragma HLS INLINE
    ap_uint<16> field[12];
    for (int i = 0; i < 12; ++i) {
#pragma HLS UNROLL
        field[i] = header[i / 4](16 * (i % 4) + 15, 16 * (i % 4));
    }
    ap_uint<16> width = field[1], height = field[2], bin = field[3], left = field[4], top = field[5];
    ap_uint<16> window_width = field[6], window_height = field[7], patch = field[8], grid = field[9];
    ap_uint<32> side = patch * grid;
    ap_uint<48> stripe = side * patch;
    bool good = complete && field[0] == MAGIC && field[10] == 0 && field[11] == 0;
    good = good && width >= 1 && width <= MAX_FRAME && height >= 1 && height <= MAX_FRAME;
    good = good && left + window_width <= width && top + window_height <= height;
    good = good && bin <= MAX_BIN && (window_width >> bin) >= 1 && (window_height >> bin) >= 1;
    good = good && patch >= 1 && grid >= 2 && side <= MAX_SIDE && stripe <= MAX_STRIPE;
    Geometry geometry;
    geometry.refused = !good;
    geometry.width = width;
    geometry.height = height;
    geometry.left = left;
    geometry.top = top;
    geometry.window_width = window_width;
    geometry.window_height = window_height;
    geometry.bin = bin;
    geometry.patch = patch;
    geometry.grid = grid;
    geometry.step_x = header[3](31, 0);
    geometry.step_y = header[3](63, 32);
    return geometry;
}

// Words to the window's pixels, one per cycle. A frame that ends early is continued in black, so that the
// tasks downstream always get the pixels they expect; what follows a frame that does not end is dropped.
void read_frame(hls::stream<Word>& in, hls::stream<Geometry>& geometry_out, hls::stream<Pixel>& pixels,
                hls::stream<StatusCode>& status) {
    ap_uint<64> header[HEADER_WORDS];
#pragma HLS ARRAY_PARTITION variable=header complete
    for (int i = 0; i < HEADER_WORDS; ++i) {  // of a packet that is shorter
#pragma HLS UNROLL
        header[i] = 0;
    }
    bool ended = false;
    for (int i = 0; i < HEADER_WORDS && !ended; ++i) {
#pragma HLS PIPELINE II=1
        Word word = in.read();
        header[i] = word.data;
        ended = word.last;
    }
    Geometry geometry = parse(header, !ended);
    geometry_out.write(geometry);

    bool missing = false;
    if (!geometry.refused) {
        ap_uint<80> bytes = 0;
        ap_uint<4> held = 0;  // of them
        ap_uint<12> x = 0, y = 0;
        const ap_uint<24> count = geometry.width * geometry.height;
        for (ap_uint<24> i = 0; i < count; ++i) {
#pragma HLS PIPELINE II=1
            if (held < 3) {
                ap_uint<80> data = 0;
                if (!ended) {
                    Word word = in.read();
                    data = word.data;
                    ended = word.last;
                } else {
                    missing = true;
                }
                bytes |= data << (8 * held);
                held += 8;
            }
            ap_uint<12> column = x - geometry.left, line = y - geometry.top;
            bool inside = x >= geometry.left && column < geometry.window_width && y >= geometry.top &&
                          line < geometry.window_height;
            if (inside) pixels.write(bytes(23, 0));
            bytes >>= 24;
            held -= 3;
            bool line_end = x == geometry.width - 1;
            x = line_end ? ap_uint<12>(0) : ap_uint<12>(x + 1);
            y = line_end ? ap_uint<12>(y + 1) : y;
        }
    }
    bool surplus = !ended;
    while (!ended) {
#pragma HLS PIPELINE II=1
        ended = in.read().last;
    }
    if (!geometry.refused) status.write(missing ? SHORT : surplus ? LONG : GOOD);
}

// Along a line: sums of 2^bin pixels, then interpolation. A cycle takes a pixel, outputs a column, or both.
void horizontal(hls::stream<Geometry>& geometry_in, hls::stream<Pixel>& pixels,
                hls::stream<Geometry>& geometry_out, hls::stream<Column>& columns) {
    Geometry geometry = geometry_in.read();
    geometry_out.write(geometry);
    if (geometry.refused) return;
    const ap_uint<12> side = geometry.patch * geometry.grid;
    const ap_uint<12> count = geometry.window_width >> geometry.bin;
    const ap_uint<3> bin_end = (1 << geometry.bin) - 1;
    for (ap_uint<12> line = 0; line < geometry.window_height; ++line) {
        Walk walk(geometry.step_x, count);
        ap_uint<11> sum[3] = {0, 0, 0}, previous[3] = {0, 0, 0}, current[3] = {0, 0, 0};
#pragma HLS ARRAY_PARTITION variable=sum complete
#pragma HLS ARRAY_PARTITION variable=previous complete
#pragma HLS ARRAY_PARTITION variable=current complete
        ap_uint<12> taken = 0, made = 0;
        ap_uint<12> complete = 0, newest = 0;  // sums, and the number of the last of them, in `current`
        ap_uint<3> in_bin = 0;
        bool due = false;  // a column of these; kept, as what changes it is known a cycle ahead
        while (made < side || taken < geometry.window_width) {
#pragma HLS PIPELINE II=1
            if (due) {
                ap_uint<9> weight = walk.weight_of(newest);
                Column column;
                for (int c = 0; c < 3; ++c) {
#pragma HLS UNROLL
                    column.channel[c] = previous[c] * ((1 << WEIGHT_BITS) - weight) + current[c] * weight;
                }
                columns.write(column);
                walk.advance();
                ++made;
                due = made < side && walk.due(newest);
            }
            if (!due && taken < geometry.window_width) {
                Pixel pixel = pixels.read();
                bool full = in_bin == bin_end, next = full && complete != count;
                for (int c = 0; c < 3; ++c) {
#pragma HLS UNROLL
                    ap_uint<11> with = (in_bin == 0 ? ap_uint<11>(0) : sum[c]) + pixel(8 * c + 7, 8 * c);
                    sum[c] = with;
                    if (next) {  // pixels beyond the last whole bin are dropped
                        previous[c] = current[c];
                        current[c] = with;
                    }
                }
                if (next) {
                    newest = complete++;
                    due = made < side && walk.due(newest);
                }
                in_bin = full ? ap_uint<3>(0) : ap_uint<3>(in_bin + 1);
                ++taken;
            }
        }
    }
}

// Across lines: sums of 2^bin lines in one of two buffers, interpolation between the two, and the only
// rounding. Pixels leave as the signed bytes that the network takes.
void vertical(hls::stream<Geometry>& geometry_in, hls::stream<Column>& columns,
              hls::stream<Geometry>& geometry_out, hls::stream<Pixel>& pixels) {
    Geometry geometry = geometry_in.read();
    geometry_out.write(geometry);
    if (geometry.refused) return;
    const ap_uint<12> side = geometry.patch * geometry.grid;
    const ap_uint<3> bin_end = (1 << geometry.bin) - 1;
    const ap_uint<5> shift = 2 * WEIGHT_BITS + 2 * geometry.bin;
    Walk walk(geometry.step_y, geometry.window_height >> geometry.bin);
    ap_uint<66> lines[2][MAX_SIDE];
#pragma HLS BIND_STORAGE variable=lines type=ram_s2p impl=lutram
#pragma HLS ARRAY_PARTITION variable=lines dim=1 complete
    ap_uint<12> made = 0;
    for (ap_uint<12> line = 0; line < geometry.window_height; ++line) {
        const ap_uint<12> newest = line >> geometry.bin;
        const ap_uint<3> in_bin = line & bin_end;
        const bool half = newest[0];
        for (ap_uint<12> j = 0; j < side; ++j) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=lines type=inter false
            Column column = columns.read();
            ap_uint<66> sums = in_bin == 0 ? ap_uint<66>(0) : lines[half][j];
            for (int c = 0; c < 3; ++c) {
#pragma HLS UNROLL
                sums(22 * c + 21, 22 * c) = ap_uint<22>(sums(22 * c + 21, 22 * c)) + column.channel[c];
            }
            lines[half][j] = sums;
        }
        while (in_bin == bin_end && made < side && walk.due(newest)) {
            const ap_uint<9> weight = walk.weight_of(newest);
            for (ap_uint<12> j = 0; j < side; ++j) {
#pragma HLS PIPELINE II=1
                // both once, as each memory has one port for reads
                const ap_uint<66> even = lines[0][j], odd = lines[1][j];
                ap_uint<66> above = half ? even : odd, below = half ? odd : even;
                if (newest == 0) above = 0;  // before the second line the other buffer is empty
                Pixel pixel;
                for (int c = 0; c < 3; ++c) {
#pragma HLS UNROLL
                    ap_uint<31> value = ap_uint<22>(above(22 * c + 21, 22 * c)) * ((1 << WEIGHT_BITS) - weight) +
                                        ap_uint<22>(below(22 * c + 21, 22 * c)) * weight;
                    value = (value + (ap_uint<31>(1) << (shift - 1))) >> shift;
                    pixel(8 * c + 7, 8 * c) = value(7, 0) ^ 0x80;
                }
                pixels.write(pixel);
            }
            walk.advance();
            ++made;
        }
    }
}

// Rows of patches to token rows, in one buffer: where a pixel leaves, one of the next row of patches
// enters. The buffer's pieces are lines of a patch. A row of patches enters line by line and leaves patch
// by patch, so the r-th piece to leave is number r * grid modulo pieces - 1 of those that entered (the
// last stays last). Pieces of the g-th row are therefore at r * grid^g modulo pieces - 1: each row of
// patches walks the buffer with its own step.
// The last two words wait until the frame is known to be good: a short one ends at the first of them, a
// long one has no TLAST, and the core stops with the corresponding error.
void patches(hls::stream<Geometry>& geometry_in, hls::stream<Pixel>& pixels, hls::stream<StatusCode>& status,
             hls::stream<Word>& out) {
    Geometry geometry = geometry_in.read();
    Word word;
    word.keep = -1;
    word.strb = -1;
    if (geometry.refused) {  // every network takes more than one word
        word.data = 0;
        word.last = 1;
        out.write(word);
        return;
    }
    const ap_uint<9> patch = geometry.patch, grid = geometry.grid;
    const ap_uint<9> side = patch * grid;
    const ap_uint<13> stripe = side * patch;
    const ap_uint<19> words = grid * grid * ((3 * patch * patch + 7) / 8);
    const ap_uint<13> last = stripe - patch;  // the last piece
    Pixel buffer[MAX_STRIPE];
#pragma HLS BIND_STORAGE variable=buffer type=ram_s2p impl=bram
    ap_uint<13> step = patch;  // in pixels
    StatusCode end = GOOD;
    ap_uint<19> sent = 0;
    ap_uint<80> bytes = 0;
    ap_uint<4> held = 0;  // of them
    for (ap_uint<9> g = 0; g <= grid; ++g) {
        ap_uint<9> x = 0, y = 0;  // in the patch that leaves
        ap_uint<9> piece = 0;
        ap_uint<13> at = 0, walked = 0, next_step = step;  // of the pixel; of the piece, but for the last
        for (ap_uint<13> i = 0; i < stripe; ++i) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=buffer type=inter false
            bool line_end = x == patch - 1, row_end = line_end && y == patch - 1;
            Pixel leaves = buffer[at];
            if (g != grid) buffer[at] = pixels.read();
            if (g != 0) {
                bytes |= ap_uint<80>(leaves) << (8 * held);
                held += 3;
                // 3 patch^2 is 0, 3 or 4 modulo 8: the last pixel of a row never completes two words
                if (held >= 8 || row_end) {
                    if (sent == words - 2) end = status.read();
                    word.data = bytes(63, 0);
                    word.last = (sent == words - 2 && end == SHORT) || (sent == words - 1 && end == GOOD);
                    if (sent != words - 1 || end != SHORT) out.write(word);
                    ++sent;
                    bytes = row_end ? ap_uint<80>(0) : ap_uint<80>(bytes >> 64);
                    held = row_end ? ap_uint<4>(0) : ap_uint<4>(held - 8);
                }
            }
            if (line_end) {
                ++piece;
                walked += step;
                if (walked >= last) walked -= last;
                if (piece == grid) next_step = walked;  // grid * step, modulo
                at = piece == side - 1 ? last : walked;
            } else {
                ++at;
            }
            x = line_end ? ap_uint<9>(0) : ap_uint<9>(x + 1);
            y = row_end ? ap_uint<9>(0) : line_end ? ap_uint<9>(y + 1) : y;
        }
        if (patch != 1) step = next_step;
    }
}

}  // namespace frontend

void rowvit_frontend(hls::stream<frontend::Word>& s_axis, hls::stream<frontend::Word>& m_axis) {
#pragma HLS INTERFACE mode=axis port=s_axis
#pragma HLS INTERFACE mode=axis port=m_axis
#pragma HLS INTERFACE mode=ap_ctrl_none port=return
    using namespace frontend;
    hls_thread_local hls::stream<Geometry, 2> read_geometry;
    hls_thread_local hls::stream<Geometry, 2> horizontal_geometry;
    hls_thread_local hls::stream<Geometry, 2> vertical_geometry;
    hls_thread_local hls::stream<Pixel, 16> read_pixels;
    hls_thread_local hls::stream<Column, 16> columns;
    hls_thread_local hls::stream<Pixel, 16> scaled_pixels;
    hls_thread_local hls::stream<StatusCode, 2> status;
    hls_thread_local hls::task reading(read_frame, s_axis, read_geometry, read_pixels, status);
    hls_thread_local hls::task across(horizontal, read_geometry, read_pixels, horizontal_geometry, columns);
    hls_thread_local hls::task down(vertical, horizontal_geometry, columns, vertical_geometry, scaled_pixels);
    hls_thread_local hls::task cutting(patches, vertical_geometry, scaled_pixels, status, m_axis);
}
