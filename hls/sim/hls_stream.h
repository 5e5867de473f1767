// SPDX-License-Identifier: Apache-2.0
// Replaces AMD's header of this name in simulation. Streams have their hardware depth and, like a FIFO in
// hardware, accept one word and deliver one word per cycle; a word can be read the cycle after it was
// written. So every order of the tasks gives the same result, and a network of streams that would deadlock
// in hardware does so here.
#ifndef ROWVIT_SIM_HLS_STREAM_H
#define ROWVIT_SIM_HLS_STREAM_H

#include "scheduler.h"

namespace hls {

template <typename T, int DEPTH = 0>
class stream;

template <typename T>
class stream<T, 0> : public sim::Channel {
public:
    stream() : stream(m_own, 2) {}
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;

    T read() {
        sim::Scheduler::wait(*this, &Channel::can_read);
        T value = m_words[m_first];
        m_first = (m_first + 1) % m_depth;
        taken();
        return value;
    }
    void write(const T& value) {
        sim::Scheduler::wait(*this, &Channel::can_write);
        m_words[(m_first + m_count) % m_depth] = value;
        given();
    }
    const T& front() const { return m_words[m_first]; }

protected:
    stream(T* words, int depth) : Channel(depth), m_words(words) {}

private:
    T m_own[2];
    T* m_words;
    int m_first = 0;
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
public:
    stream() : stream<T, 0>(m_space, DEPTH) {}

private:
    T m_space[DEPTH];
};

}  // namespace hls

#endif
