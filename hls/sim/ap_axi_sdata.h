// SPDX-License-Identifier: Apache-2.0
// Replaces AMD's header of this name in simulation: a word of AXI4-Stream with TKEEP, TSTRB and TLAST.
#ifndef ROWVIT_SIM_AP_AXI_SDATA_H
#define ROWVIT_SIM_AP_AXI_SDATA_H

#include "ap_int.h"

template <int DATA, int USER = 0, int ID = 0, int DEST = 0>
struct ap_axiu {
    static_assert(USER == 0 && ID == 0 && DEST == 0, "not simulated");
    ap_uint<DATA> data;
    ap_uint<DATA / 8> keep, strb;
    ap_uint<1> last;
};

#endif
