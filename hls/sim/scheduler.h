// SPDX-License-Identifier: Apache-2.0
// Runs the tasks of a kernel concurrently, cycle by cycle: each on its own stack, until a stream that it
// reads is empty or one that it writes is full.
#ifndef ROWVIT_SIM_SCHEDULER_H
#define ROWVIT_SIM_SCHEDULER_H

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace sim {

class Channel;

class Scheduler {
public:
    using Condition = bool (Channel::*)() const;

    // The scheduler whose tasks run, or are being started, in this thread.
    static inline thread_local Scheduler* current = nullptr;

    uint64_t cycle() const { return m_cycle; }

    void start(std::function<void()> body) { m_tasks.push_back(std::make_unique<Task>(std::move(body))); }

    // One cycle of all tasks.
    void step();

    // Called by tasks; from outside, only if the condition holds.
    static void wait(const Channel& channel, Condition condition);
    static void wait_for_ever();

private:
    struct Task {
        static constexpr size_t STACK = 1 << 18;

        explicit Task(std::function<void()> function) : body(std::move(function)), stack(new char[STACK]) {
            getcontext(&context);
            context.uc_stack.ss_sp = stack.get();
            context.uc_stack.ss_size = STACK;
            context.uc_link = nullptr;
            makecontext(&context, &Scheduler::enter, 0);
        }

        std::function<void()> body;
        // A task never returns: its stack is discarded as it is, so nothing on it may own memory.
        std::unique_ptr<char[]> stack;
        ucontext_t context;
        const Channel* channel = nullptr;  // whose `condition` the task waits for
        Condition condition = nullptr;
        bool stopped = false;
    };

    static void enter() {
        current->m_running->body();
        wait_for_ever();
    }
    static void leave() { swapcontext(&current->m_running->context, &current->m_outside); }

    std::vector<std::unique_ptr<Task>> m_tasks;
    Task* m_running = nullptr;
    ucontext_t m_outside;
    uint64_t m_cycle = 1;
};

// A stream without its words.
class Channel {
public:
    explicit Channel(int depth) : m_depth(depth) {}

    bool can_read() const { return m_read != now() && m_count > (m_written == now() ? 1 : 0); }
    bool can_write() const { return m_written != now() && m_count + (m_read == now() ? 1 : 0) < m_depth; }

protected:
    void taken() {
        --m_count;
        m_read = now();
    }
    void given() {
        ++m_count;
        m_written = now();
    }

    const int m_depth;
    int m_count = 0;

private:
    static uint64_t now() { return Scheduler::current->cycle(); }

    uint64_t m_read = 0, m_written = 0;  // the cycle of the last one
};

inline void Scheduler::step() {
    for (size_t i = 0; i < m_tasks.size(); ++i) {  // a task may start others
        Task& task = *m_tasks[i];
        if (task.stopped || (task.channel && !(task.channel->*task.condition)())) continue;
        m_running = &task;
        swapcontext(&m_outside, &task.context);
    }
    m_running = nullptr;
    ++m_cycle;
}

inline void Scheduler::wait(const Channel& channel, Condition condition) {
    if ((channel.*condition)()) return;
    Task& task = *current->m_running;
    task.channel = &channel;
    task.condition = condition;
    leave();
    task.channel = nullptr;
}

inline void Scheduler::wait_for_ever() {
    current->m_running->stopped = true;
    leave();
}

}  // namespace sim

#endif
