// SPDX-License-Identifier: Apache-2.0
// The simulated kernel as a shared library: its clock and its two streams.
#ifndef ROWVIT_SIM_PORTS_H
#define ROWVIT_SIM_PORTS_H

#include <stdint.h>

struct FrontendPorts {
    uint64_t s_tdata, m_tdata;
    uint8_t s_tvalid, s_tlast, m_tready;  // set by the caller
    uint8_t s_tready, m_tvalid, m_tlast;  // set by the kernel, with m_tdata
};

extern "C" {
void* frontend_new(void);
void frontend_delete(void* frontend);
// A clock edge. The kernel's outputs must be as the last call left them, all zero after a reset.
void frontend_clock(void* frontend, struct FrontendPorts* ports);
// Like ap_rst_n: everything starts afresh.
void frontend_reset(void* frontend, struct FrontendPorts* ports);
}

#endif
