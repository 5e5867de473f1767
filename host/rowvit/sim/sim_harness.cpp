// SPDX-License-Identifier: Apache-2.0
// The board around the Verilated rowvit_top: clock, DDR behind an AXI4 read port, a Xilinx AXI DMA in
// direct register mode on the two streams, and an AXI4-Lite master; if asked for, the HLS front end
// between DMA and core. Python drives it through the C functions at the end; nothing but register
// accesses and "run" cross that border.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <fstream>
#include <string>
#include <vector>

#include "Vrowvit.h"
#include "Vrowvit___024root.h"
#include "ports.h"
#include "verilated.h"
#ifdef ROWVIT_TRACE
#include "verilated_fst_c.h"
#endif
#ifdef ROWVIT_ACTIVITY
#include "Vrowvit__Dpi.h"
#endif

namespace {

constexpr uint32_t LITE_TIMEOUT = 100000;  // cycles that an AXI4-Lite access may take
constexpr size_t MAX_BURSTS = 16;          // read bursts the memory takes at once
constexpr size_t STREAM_FIFO = 16;         // words the DMA buffers on their way to memory
constexpr size_t STREAM_EARLY = 4;         // of these, words it takes before a transfer is set up (PG021)

enum Failure : uint32_t {
    NONE = 0,
    LITE_STUCK = 1,
    AR_CHANGED = 2,
    AR_SHAPE = 3,
    STREAM_CHANGED = 4,
    ASSERTION = 5,  // Verilator has printed it
};

// Stalls a channel for random stretches; never with seed 0.
class Stall {
public:
    void seed(uint64_t value) { m_state = value; }
    bool step() {
        if (m_state == 0) return false;
        if (m_left == 0) {
            m_state ^= m_state << 13;
            m_state ^= m_state >> 7;
            m_state ^= m_state << 17;
            m_on = m_state >> 63;
            // mostly short stretches, now and then a long one
            m_left = (m_state >> 8) % ((m_state >> 40) % 16 == 0 ? 200 : 9) + 1;
        }
        --m_left;
        return m_on;
    }

private:
    uint64_t m_state = 0;
    uint32_t m_left = 0;
    bool m_on = false;
};

struct Memory {
    uint8_t* data;
    uint64_t base;
    uint64_t size;

    bool holds(uint64_t address, uint64_t bytes) const {
        return address >= base && bytes <= size && address - base <= size - bytes;
    }
    uint64_t read(uint64_t address, uint32_t bytes = 8) const {
        uint64_t word = 0;
        std::memcpy(&word, data + (address - base), bytes);
        return word;
    }
    void write(uint64_t address, uint64_t word, uint32_t bytes) const {
        std::memcpy(data + (address - base), &word, bytes);
    }
};

// One channel of the AXI DMA (PG021, direct register mode, no data realignment).
struct Channel {
    static constexpr uint32_t RUN = 1, RESET = 1 << 2, IOC = 1 << 12, ERR = 1 << 14;
    static constexpr uint32_t INTERNAL = 1 << 4, DECODE = 1 << 6;
    static constexpr uint32_t LENGTH_MASK = (1u << 26) - 1;

    uint32_t control = 0;
    uint32_t irq = 0;     // IOC and ERR of the status register
    uint32_t errors = 0;  // error bits of the status register
    bool halted = true;
    bool idle = false;
    bool active = false;
    uint64_t address = 0;
    uint32_t length = 0;  // what the register reads
    uint32_t remaining = 0;  // bytes still to move
    uint32_t moved = 0;
    uint64_t start = 0;  // cycle of the first word at the earliest

    void reset() { *this = Channel(); }

    uint32_t status() const { return 0x10000u | irq | errors | (idle ? 2 : 0) | (halted ? 1 : 0); }
    bool interrupt() const { return (irq & control & (IOC | ERR)) != 0; }

    void write_control(uint32_t value) {
        control = value & (RUN | IOC | ERR);
        if (control & RUN) {
            if (halted) idle = false;
            halted = false;
        } else if (!active) {  // a transfer under way is finished first
            halted = true;
        }
    }
    void write_length(uint32_t value, uint64_t now) {
        if (halted || active) return;
        length = remaining = value & LENGTH_MASK;
        moved = 0;
        idle = false;
        if (length == 0) {
            fail(INTERNAL);
            return;
        }
        active = true;
        start = now;
    }
    void set_address(uint32_t value, int shift) {
        address = (address & ~(0xFFFFFFFFull << shift)) | static_cast<uint64_t>(value) << shift;
    }
    void move(uint32_t bytes) {
        remaining -= bytes;
        moved += bytes;
    }
    void finish() {
        active = false;
        idle = true;
        irq |= IOC;
        if (!(control & RUN)) halted = true;
    }
    void fail(uint32_t error) {
        active = false;
        errors |= error;
        irq |= ERR;
        halted = true;
        control &= ~RUN;
    }
};

struct Burst {
    uint64_t address;
    uint32_t beats;
    uint64_t start;
};

struct Word {
    uint64_t data;
    uint32_t bytes;
    bool last;
};

// The words of a beat, to a port of 64 bits or more.
void set_port(QData& port, const uint64_t* words) { port = words[0]; }
template <std::size_t N>
void set_port(VlWide<N>& port, const uint64_t* words) {
    for (std::size_t i = 0; i < N; ++i) port[i] = static_cast<EData>(words[i / 2] >> 32 * (i % 2));
}

// The HLS front end, from its shared library. Its reset is the DMA's reset output.
class Frontend {
public:
    ~Frontend() {
        if (m_kernel) m_delete(m_kernel);
    }
    bool load(const char* path) {
        void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) return false;
        auto make = reinterpret_cast<decltype(&frontend_new)>(dlsym(library, "frontend_new"));
        m_delete = reinterpret_cast<decltype(m_delete)>(dlsym(library, "frontend_delete"));
        m_clock = reinterpret_cast<decltype(m_clock)>(dlsym(library, "frontend_clock"));
        m_reset = reinterpret_cast<decltype(m_reset)>(dlsym(library, "frontend_reset"));
        if (make && m_delete && m_clock && m_reset) m_kernel = make();
        return m_kernel != nullptr;
    }
    explicit operator bool() const { return m_kernel != nullptr; }
    void clock() { m_clock(m_kernel, &ports); }
    void reset() {
        if (m_kernel) m_reset(m_kernel, &ports);
    }

    FrontendPorts ports{};

private:
    void* m_kernel = nullptr;
    decltype(&frontend_delete) m_delete = nullptr;
    decltype(&frontend_clock) m_clock = nullptr;
    decltype(&frontend_reset) m_reset = nullptr;
};

// What the models drive into the core.
struct Inputs {
    bool awvalid = false, wvalid = false, bready = false, arvalid = false, rready = false;
    uint32_t awaddr = 0, wdata = 0, araddr = 0;
    bool m_arready = false, m_rvalid = false, m_rlast = false;
    uint8_t m_rresp = 0;
    uint64_t m_rdata[2] = {};
    bool s_tvalid = false, s_tlast = false, m_tready = false;
    uint64_t s_tdata = 0;
};

// What is done to one word of a port, once: the word-th from now on.
struct Fault {
    enum Port : uint32_t { READ, SEND, RECEIVE, ADDRESS };  // words of traffic, and read addresses
    enum Effect : uint32_t {
        NONE,
        PAUSE,  // it comes `value` cycles late
        FLIP,   // its bit `value` is inverted
        LAST,   // its TLAST is inverted
        ERROR,  // it comes with the response `value`; or the DMA's channel halts with these status bits
    };
    Port port = READ;
    Effect effect = NONE;
    uint64_t word = 0, value = 0;
};

// Operations that every engine has completed and the core's counters, in a cycle that completed one.
struct Event {
    static constexpr size_t DONE = sizeof(Vrowvit___024root::rowvit_top__DOT__done) / 4;  // words of 32 bits
    static constexpr size_t COUNTERS = sizeof(Vrowvit___024root::rowvit_top__DOT__counters) / 4;
    uint32_t done[DONE];
    uint32_t counters[COUNTERS];
};

// Counts of activity.sv by name, of the simulation whose cycle runs in this thread.
struct Activity {
    std::string names;  // a line each
    std::vector<uint64_t> counts;
};
thread_local Activity* running_activity = nullptr;

class Sim {
public:
    struct Stats {
        uint64_t cycles, progress, bursts, beats, sent, received, failure;
    };

    Sim(uint8_t* data, uint64_t base, uint64_t size, uint32_t latency, uint32_t rate, bool ideal, uint64_t seed)
        : m_memory{data, base, size}, m_latency(latency), m_rate(rate), m_ideal(ideal) {
        Stall* stalls[] = {&m_stall_lite, &m_stall_ar, &m_stall_r, &m_stall_in, &m_stall_out, &m_stall_core};
        for (uint64_t i = 0; i < 6; ++i) stalls[i]->seed(seed ? seed * 0x9E3779B97F4A7C15u + i + 1 : 0);
        m_context.fatalOnError(false);
#ifdef ROWVIT_TRACE
        m_context.traceEverOn(true);
        m_top.trace(&m_fst, 99);
#endif
        reset();
    }
    ~Sim() {
        enter();
        m_top.final();
    }

    bool load_frontend(const char* path) { return m_frontend.load(path); }

    // What loading a bitstream does: everything starts over.
    void reset() {
        m_mm2s.reset();
        m_s2mm.reset();
        m_frontend.reset();
        m_send = Word();
        m_bursts.clear();
        m_fifo.clear();
        m_in = Inputs();
        m_aw_waits = m_w_waits = m_ar_waits = m_write_open = m_read_open = false;
        m_ar_held = m_out_held = false;
        m_failure = NONE;
        m_context.gotError(false);
        drive();
        m_top.aresetn = 0;
        for (int i = 0; i < 16; ++i) cycle();
        m_top.aresetn = 1;
        cycle();
    }

    // Cycles until something happens that a host waits for, or `cycles`.
    void run(uint64_t cycles) {
        m_event = false;
        for (uint64_t i = 0; i < cycles && !m_event && m_failure == NONE; ++i) cycle();
    }

    bool write(uint32_t address, uint32_t value) {
        m_credit = m_turn = 0;  // so that a start takes the same cycles whatever came before it
        m_in.awaddr = address;
        m_in.wdata = value;
        m_aw_waits = m_w_waits = m_write_open = true;
        return complete(m_write_open);
    }
    bool read(uint32_t address, uint32_t* value) {
        m_in.araddr = address;
        m_ar_waits = m_read_open = true;
        bool ok = complete(m_read_open);
        *value = m_lite_data;
        return ok;
    }

    uint32_t dma_read(uint32_t offset) const {
        const Channel& channel = offset < 0x30 ? m_mm2s : m_s2mm;
        switch (offset % 0x30) {
            case 0x00: return channel.control | 0x10002;
            case 0x04: return channel.status();
            case 0x18: return static_cast<uint32_t>(channel.address);
            case 0x1C: return static_cast<uint32_t>(channel.address >> 32);
            case 0x28: return channel.length;
            default: return 0;
        }
    }
    void dma_write(uint32_t offset, uint32_t value) {
        Channel& channel = offset < 0x30 ? m_mm2s : m_s2mm;
        switch (offset % 0x30) {
            case 0x00:
                if (value & Channel::RESET) {  // on either channel it resets both
                    m_mm2s.reset();
                    m_s2mm.reset();
                    m_frontend.reset();
                    m_send = Word();
                    m_fifo.clear();
                    m_in.s_tvalid = m_in.m_tready = false;
                    m_failure = NONE;  // a core that was reset with a word on offer broke a rule
                    drive();
                } else {
                    channel.write_control(value);
                }
                break;
            case 0x04: channel.irq &= ~value; break;
            case 0x18: channel.set_address(value, 0); break;
            case 0x1C: channel.set_address(value, 32); break;
            case 0x28: channel.write_length(value, m_now + (m_ideal ? 0 : m_latency)); break;
            default: break;
        }
    }

    uint32_t interrupts() const {
        return (m_mm2s.interrupt() ? 1 : 0) | (m_s2mm.interrupt() ? 2 : 0) | (m_top.irq ? 4 : 0);
    }

    // Transfers under way: 1 MM2S, 2 S2MM.
    uint32_t active() const { return (m_mm2s.active ? 1 : 0) | (m_s2mm.active ? 2 : 0); }

    Stats stats() const { return {m_now, m_progress, m_burst_count, m_beats, m_sent, m_received, m_failure}; }

    void inject(const Fault& fault) { m_fault = fault; }

    // Record events from now on, or no more; forgets those recorded.
    void watch(bool on) {
        m_watch = on;
        m_events.clear();
        m_counted.clear();
        std::fill(m_activity.counts.begin(), m_activity.counts.end(), 0);
    }
    const std::vector<Event>& events() const { return m_events; }

    // Names of the counts, and their values since `watch`: at every event, and now.
    const char* activity_names() const { return m_activity.names.c_str(); }
    const std::vector<uint64_t>& activity() {
        m_counted.resize(m_events.size() * m_activity.counts.size());
        m_counted.insert(m_counted.end(), m_activity.counts.begin(), m_activity.counts.end());
        return m_counted;
    }

    // Record cycles from..to-1; 0 if the file could be opened.
    int trace(const char* path, uint64_t from, uint64_t to) {
#ifdef ROWVIT_TRACE
        if (!std::ofstream(path)) return 1;  // later Verilators open it only when they write
        m_fst.open(path);
        m_trace_from = from;
        m_trace_to = to;
        return m_fst.isOpen() ? 0 : 1;
#else
        (void)path, (void)from, (void)to;
        return 1;
#endif
    }

private:
    bool complete(const bool& open) {
        for (uint32_t i = 0; open && i < LITE_TIMEOUT && m_failure == NONE; ++i) cycle();
        if (open && m_failure == NONE) m_failure = LITE_STUCK;
        return !open;
    }

    // Of several simulations it is this one that goes on: it hears of assertions, and counts.
    void enter() {
        Verilated::threadContextp(&m_context);
        running_activity = &m_activity;
    }

    void cycle() {
        enter();
        m_top.aclk = 0;
        m_top.eval();  // outputs follow the inputs that the last cycle left
        dump(0);
        if (m_top.aresetn) step();
        m_top.aclk = 1;
        m_top.eval();
        if (m_context.gotError()) m_failure = ASSERTION;
        dump(5);
        drive();
        ++m_now;
    }

    void dump(uint64_t phase) {
#ifdef ROWVIT_TRACE
        if (m_now >= m_trace_from && m_now < m_trace_to) m_fst.dump(10 * m_now + phase);
        if (phase && m_now + 1 == m_trace_to) m_fst.close();
#else
        (void)phase;
#endif
    }

    void drive() {
        m_top.s_axil_awaddr = m_in.awaddr;
        m_top.s_axil_awvalid = m_in.awvalid;
        m_top.s_axil_wdata = m_in.wdata;
        m_top.s_axil_wstrb = 15;
        m_top.s_axil_wvalid = m_in.wvalid;
        m_top.s_axil_bready = m_in.bready;
        m_top.s_axil_araddr = m_in.araddr;
        m_top.s_axil_arvalid = m_in.arvalid;
        m_top.s_axil_rready = m_in.rready;
        m_top.m_axi_arready = m_in.m_arready;
        m_top.m_axi_rvalid = m_in.m_rvalid;
        set_port(m_top.m_axi_rdata, m_in.m_rdata);
        m_top.m_axi_rresp = m_in.m_rresp;
        m_top.m_axi_rlast = m_in.m_rlast;
        m_top.s_axis_tvalid = m_in.s_tvalid;
        m_top.s_axis_tdata = m_in.s_tdata;
        m_top.s_axis_tlast = m_in.s_tlast;
        m_top.m_axis_tready = m_in.m_tready;
    }

    // One clock edge: handshakes of this cycle, then what the models drive in the next.
    void step() {
        if (m_watch) watch_progress();
        bool irq = m_top.irq;
        if (irq && !m_irq) m_event = true;
        m_irq = irq;
        step_lite();
        // A word of memory traffic per granted cycle, shared by all who want one; an ideal memory
        // serves everyone in every cycle.
        m_credit += m_rate;
        m_words_left = m_ideal ? 3 : m_credit >= 100;
        m_credit %= 100;
        static constexpr void (Sim::*PORTS[])() = {&Sim::step_read, &Sim::step_send, &Sim::step_receive};
        uint32_t first = m_turn;
        for (uint32_t i = 0; i < 3; ++i) (this->*PORTS[(first + i) % 3])();
    }

    void watch_progress() {
        const auto& done = m_top.rootp->rowvit_top__DOT__done;
        const auto& counters = m_top.rootp->rowvit_top__DOT__counters;
        if (!m_events.empty() && std::equal(m_events.back().done, m_events.back().done + Event::DONE, &done[0])) return;
        Event event;
        std::copy(&done[0], &done[0] + Event::DONE, event.done);
        std::copy(&counters[0], &counters[0] + Event::COUNTERS, event.counters);
        m_events.push_back(event);
        m_counted.insert(m_counted.end(), m_activity.counts.begin(), m_activity.counts.end());
    }

    // Take a word of memory traffic; the next cycle offers it to the port after `port` first.
    void take(uint32_t port) {
        --m_words_left;
        m_turn = (port + 1) % 3;
    }

    // Whether a fault keeps back the word that this port would move next.
    bool held(Fault::Port port) {
        if (m_fault.effect != Fault::PAUSE || m_fault.port != port || m_fault.word || !m_fault.value) return false;
        --m_fault.value;
        return true;
    }

    // The fault of the word that this port moves now.
    Fault::Effect strike(Fault::Port port) {
        if (m_fault.effect == Fault::NONE || m_fault.port != port || m_fault.word--) return Fault::NONE;
        Fault::Effect effect = m_fault.effect;
        m_fault.effect = Fault::NONE;
        return effect;
    }

    void step_lite() {
        bool stall = m_stall_lite.step();
        if (m_in.awvalid && m_top.s_axil_awready) m_in.awvalid = m_aw_waits = false;
        if (m_in.wvalid && m_top.s_axil_wready) m_in.wvalid = m_w_waits = false;
        if (m_in.bready && m_top.s_axil_bvalid) m_write_open = false;
        if (m_in.arvalid && m_top.s_axil_arready) m_in.arvalid = m_ar_waits = false;
        if (m_in.rready && m_top.s_axil_rvalid) {
            m_read_open = false;
            m_lite_data = m_top.s_axil_rdata;
        }
        // what is offered stays offered; address and data of a write stall on alternate cycles
        m_in.awvalid |= m_aw_waits && !stall;
        m_in.wvalid |= m_w_waits && !(stall && (m_now & 1));
        m_in.arvalid |= m_ar_waits && !stall;
        m_in.bready = m_write_open && !stall;
        m_in.rready = m_read_open && !stall;
    }

    // Port 0: reads of the core.
    void step_read() {
        bool offered = m_top.m_axi_arvalid;
        uint64_t address = m_top.m_axi_araddr;
        uint32_t beats = m_top.m_axi_arlen + 1u;
        if (m_ar_held && (!offered || address != m_ar_address || beats != m_ar_beats)) m_failure = AR_CHANGED;
        constexpr uint64_t bytes = sizeof(m_top.m_axi_rdata);  // 8 or 16, of a beat
        if (offered && (1u << m_top.m_axi_arsize != bytes || m_top.m_axi_arburst != 1 || address % bytes ||
                        (address & 4095) + bytes * beats > 4096))
            m_failure = AR_SHAPE;
        if (offered && m_in.m_arready) {
            if (strike(Fault::ADDRESS) == Fault::FLIP) address ^= uint64_t{1} << m_fault.value % 64;
            m_bursts.push_back({address, beats, m_now + (m_ideal ? 0 : m_latency)});
            ++m_burst_count;
            m_progress = m_now;
        }
        m_ar_held = offered && !m_in.m_arready;
        m_ar_address = m_top.m_axi_araddr;
        m_ar_beats = beats;
        m_in.m_arready = m_bursts.size() < MAX_BURSTS && !m_stall_ar.step() && !held(Fault::ADDRESS);

        if (m_in.m_rvalid && m_top.m_axi_rready) {
            m_in.m_rvalid = false;
            ++m_beats;
            m_progress = m_now;
        }
        bool stall = m_stall_r.step();
        if (!m_in.m_rvalid && !m_bursts.empty() && m_bursts.front().start <= m_now && !held(Fault::READ) &&
            m_words_left && !stall) {
            Burst& burst = m_bursts.front();
            bool inside = m_memory.holds(burst.address, bytes);
            m_in.m_rvalid = true;
            for (uint64_t i = 0; i < bytes / 8; ++i)
                m_in.m_rdata[i] = inside ? m_memory.read(burst.address + 8 * i) : 0;
            m_in.m_rresp = inside ? 0 : 3;  // DECERR
            Fault::Effect effect = strike(Fault::READ);
            if (effect == Fault::FLIP) m_in.m_rdata[m_fault.value / 64 % 2] ^= uint64_t{1} << m_fault.value % 64;
            if (effect == Fault::ERROR) m_in.m_rresp = static_cast<uint8_t>(m_fault.value & 3);
            m_in.m_rlast = --burst.beats == 0;
            burst.address += bytes;
            if (burst.beats == 0) m_bursts.pop_front();
            take(0);
        }
    }

    // Port 1: memory to stream.
    void step_send() {
        bool taken = m_in.s_tvalid && m_top.s_axis_tready;
        if (!m_frontend) {
            send(taken);
            m_in.s_tvalid = m_send.bytes != 0;
            m_in.s_tdata = m_send.data;
            m_in.s_tlast = m_send.last;
            return;
        }
        FrontendPorts& ports = m_frontend.ports;
        if (taken) m_progress = m_now;
        bool sent = ports.s_tvalid && ports.s_tready;
        ports.m_tready = taken;
        m_frontend.clock();
        send(sent);
        ports.s_tvalid = m_send.bytes != 0;
        ports.s_tdata = m_send.data;
        ports.s_tlast = m_send.last;
        // what is offered stays offered until it is taken
        bool stall = m_stall_core.step();
        m_in.s_tvalid = ports.m_tvalid && ((m_in.s_tvalid && !taken) || !stall);
        m_in.s_tdata = ports.m_tdata;
        m_in.s_tlast = ports.m_tlast;
    }

    // The DMA's word is taken, and the next one read.
    void send(bool taken) {
        if (taken) {
            m_send.bytes = 0;
            ++m_sent;
            m_progress = m_now;
            if (m_mm2s.active && m_mm2s.remaining == 0) finish(m_mm2s);
        }
        bool stall = m_stall_in.step();
        if (m_send.bytes || !m_mm2s.remaining || !m_mm2s.active || m_mm2s.start > m_now || held(Fault::SEND) ||
            !m_words_left || stall)
            return;
        Fault::Effect effect = strike(Fault::SEND);
        if (effect == Fault::ERROR) {
            fail(m_mm2s, static_cast<uint32_t>(m_fault.value));
            return;
        }
        uint32_t bytes = std::min(m_mm2s.remaining, 8u);
        if (!m_memory.holds(m_mm2s.address + m_mm2s.moved, bytes)) {
            fail(m_mm2s, Channel::DECODE);
            return;
        }
        m_send.bytes = bytes;
        m_send.data = m_memory.read(m_mm2s.address + m_mm2s.moved, bytes);
        m_mm2s.move(bytes);
        m_send.last = m_mm2s.remaining == 0;
        if (effect == Fault::FLIP) m_send.data ^= uint64_t{1} << m_fault.value % 64;
        if (effect == Fault::LAST) m_send.last = !m_send.last;
        take(1);
    }

    // Port 2: stream to memory.
    void step_receive() {
        bool offered = m_top.m_axis_tvalid;
        Word word{m_top.m_axis_tdata, static_cast<uint32_t>(__builtin_popcount(m_top.m_axis_tkeep)),
                  static_cast<bool>(m_top.m_axis_tlast)};
        if (m_out_held && (!offered || word.data != m_out_word.data || word.last != m_out_word.last))
            m_failure = STREAM_CHANGED;
        m_out_held = offered && !m_in.m_tready && m_s2mm.active;
        m_out_word = word;
        if (offered && m_in.m_tready) {
            m_fifo.push_back(word);
            ++m_received;
            m_progress = m_now;
        }
        if (!m_fifo.empty() && m_s2mm.active && m_s2mm.start <= m_now && !held(Fault::RECEIVE) && m_words_left) {
            Word out = m_fifo.front();
            m_fifo.pop_front();
            Fault::Effect effect = strike(Fault::RECEIVE);
            if (effect == Fault::FLIP) out.data ^= uint64_t{1} << m_fault.value % 64;
            if (effect == Fault::LAST) out.last = !out.last;
            if (effect == Fault::ERROR) {
                fail(m_s2mm, static_cast<uint32_t>(m_fault.value));
            } else if (out.bytes > m_s2mm.remaining) {
                fail(m_s2mm, Channel::INTERNAL);  // the packet is longer than the transfer
            } else if (!m_memory.holds(m_s2mm.address + m_s2mm.moved, out.bytes)) {
                fail(m_s2mm, Channel::DECODE);
            } else {
                m_memory.write(m_s2mm.address + m_s2mm.moved, out.data, out.bytes);
                m_s2mm.move(out.bytes);
                take(2);
                if (out.last) {
                    m_s2mm.length = m_s2mm.moved;
                    finish(m_s2mm);
                } else if (m_s2mm.remaining == 0) {
                    fail(m_s2mm, Channel::INTERNAL);
                }
            }
        }
        // words of the next packet, but for the first ones, wait outside until the next transfer is set up
        bool ends = std::any_of(m_fifo.begin(), m_fifo.end(), [](const Word& word) { return word.last; });
        size_t room = m_s2mm.active && !ends ? STREAM_FIFO : STREAM_EARLY;
        m_in.m_tready = m_fifo.size() < room && !m_stall_out.step();
    }

    void finish(Channel& channel) {
        channel.finish();
        m_event = true;
    }
    void fail(Channel& channel, uint32_t error) {
        channel.fail(error);
        m_event = true;
    }

    VerilatedContext m_context;
    Vrowvit m_top{&m_context};
    Inputs m_in;
    Memory m_memory;
    uint32_t m_latency, m_rate;
    bool m_ideal;
    Stall m_stall_lite, m_stall_ar, m_stall_r, m_stall_in, m_stall_out, m_stall_core;
    Channel m_mm2s, m_s2mm;
    Word m_send{};  // what the DMA offers; 0 bytes: nothing
    Frontend m_frontend;

    uint64_t m_now = 0, m_progress = 0;  // cycle; cycle of the last word or burst
    uint64_t m_burst_count = 0, m_beats = 0, m_sent = 0, m_received = 0;
    Failure m_failure = NONE;
    Fault m_fault;
    bool m_event = false, m_irq = false;

    bool m_aw_waits = false, m_w_waits = false, m_ar_waits = false;
    bool m_write_open = false, m_read_open = false;
    uint32_t m_lite_data = 0;

    uint32_t m_credit = 0, m_words_left = 0, m_turn = 0;
    std::deque<Burst> m_bursts;
    bool m_ar_held = false;
    uint64_t m_ar_address = 0;
    uint32_t m_ar_beats = 0;

    bool m_watch = false;
    std::vector<Event> m_events;
    Activity m_activity;
    std::vector<uint64_t> m_counted;  // at every event

    std::deque<Word> m_fifo;
    bool m_out_held = false;
    Word m_out_word{};

#ifdef ROWVIT_TRACE
    VerilatedFstC m_fst;
    uint64_t m_trace_from = 0, m_trace_to = 0;
#endif
};

}  // namespace

extern "C" {

#ifdef ROWVIT_ACTIVITY
int rowvit_count_number(const char* name) {
    std::string& names = running_activity->names;
    std::string line = std::string(name) + "\n", before = "\n" + names;
    size_t found = before.find("\n" + line);
    if (found == std::string::npos) {
        found = names.size();
        names += line;
        running_activity->counts.push_back(0);
    }
    return static_cast<int>(std::count(names.begin(), names.begin() + found, '\n'));
}
void rowvit_count(int number, int amount) { running_activity->counts[number] += static_cast<uint32_t>(amount); }
#endif

Sim* rowvit_new(uint8_t* data, uint64_t base, uint64_t size, uint32_t latency, uint32_t rate, int ideal,
                uint64_t seed) {
    return new Sim(data, base, size, latency, rate, ideal != 0, seed);
}
void rowvit_delete(Sim* sim) { delete sim; }
int rowvit_load_frontend(Sim* sim, const char* path) { return sim->load_frontend(path) ? 0 : 1; }
void rowvit_reset(Sim* sim) { sim->reset(); }
void rowvit_run(Sim* sim, uint64_t cycles) { sim->run(cycles); }
int rowvit_read(Sim* sim, uint32_t address, uint32_t* value) { return sim->read(address, value) ? 0 : 1; }
int rowvit_write(Sim* sim, uint32_t address, uint32_t value) { return sim->write(address, value) ? 0 : 1; }
uint32_t rowvit_dma_read(Sim* sim, uint32_t offset) { return sim->dma_read(offset); }
void rowvit_dma_write(Sim* sim, uint32_t offset, uint32_t value) { sim->dma_write(offset, value); }
uint32_t rowvit_interrupts(Sim* sim) { return sim->interrupts(); }
uint32_t rowvit_active(Sim* sim) { return sim->active(); }
void rowvit_stats(Sim* sim, Sim::Stats* stats) { *stats = sim->stats(); }
void rowvit_inject(Sim* sim, uint32_t port, uint32_t effect, uint64_t word, uint64_t value) {
    sim->inject({static_cast<Fault::Port>(port), static_cast<Fault::Effect>(effect), word, value});
}
void rowvit_watch(Sim* sim, int on) { sim->watch(on != 0); }
uint64_t rowvit_event_count(Sim* sim) { return sim->events().size(); }
const Event* rowvit_events(Sim* sim) { return sim->events().data(); }
const char* rowvit_activity_names(Sim* sim) { return sim->activity_names(); }
const uint64_t* rowvit_activity(Sim* sim) { return sim->activity().data(); }
int rowvit_trace(Sim* sim, const char* path, uint64_t from, uint64_t to) { return sim->trace(path, from, to); }

}  // extern "C"
