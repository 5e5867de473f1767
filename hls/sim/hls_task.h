// SPDX-License-Identifier: Apache-2.0
// Replaces AMD's header of this name in simulation.
#ifndef ROWVIT_SIM_HLS_TASK_H
#define ROWVIT_SIM_HLS_TASK_H

#include "scheduler.h"

// The top function runs once and never returns, so its local streams and tasks persist.
#define hls_thread_local

namespace hls {

class task {
public:
    template <typename Function, typename... Streams>
    explicit task(Function* function, Streams&... streams) {
        sim::Scheduler::current->start([function, &streams...] {
            for (;;) function(streams...);
        });
    }
    ~task() { sim::Scheduler::wait_for_ever(); }
};

}  // namespace hls

#endif
