// SPDX-License-Identifier: Apache-2.0
// The kernel as a shared library, clocked from outside.
#include <memory>

#include "../frontend.h"
#include "ports.h"

namespace {

// One kernel since its reset.
struct Run {
    sim::Scheduler scheduler;
    std::unique_ptr<hls::stream<frontend::Word>> in, out;

    Run() {
        sim::Scheduler::current = &scheduler;
        in = std::make_unique<hls::stream<frontend::Word>>();
        out = std::make_unique<hls::stream<frontend::Word>>();
        scheduler.start([this] { rowvit_frontend(*in, *out); });
    }
};

struct Simulator {
    std::unique_ptr<Run> run = std::make_unique<Run>();

    void clock(FrontendPorts& ports) {
        sim::Scheduler::current = &run->scheduler;
        if (ports.s_tvalid && ports.s_tready) {
            frontend::Word word;
            word.data = ports.s_tdata;
            word.keep = word.strb = -1;
            word.last = ports.s_tlast;
            run->in->write(word);
        }
        if (ports.m_tvalid && ports.m_tready) run->out->read();
        run->scheduler.step();
        ports.s_tready = run->in->can_write();
        ports.m_tvalid = run->out->can_read();
        if (ports.m_tvalid) {
            ports.m_tdata = run->out->front().data.to_uint64();
            ports.m_tlast = run->out->front().last;
        }
    }
};

}  // namespace

void* frontend_new() { return new Simulator; }
void frontend_delete(void* frontend) { delete static_cast<Simulator*>(frontend); }
void frontend_clock(void* frontend, FrontendPorts* ports) { static_cast<Simulator*>(frontend)->clock(*ports); }
void frontend_reset(void* frontend, FrontendPorts* ports) {
    static_cast<Simulator*>(frontend)->run = std::make_unique<Run>();
    *ports = FrontendPorts();
}
