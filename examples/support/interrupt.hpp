// Ctrl-C as a wish to stop soon.
#pragma once

#include <csignal>

namespace support {

namespace detail {

inline volatile std::sig_atomic_t interrupt_seen = 0;

extern "C" inline void note_interrupt(int signal) {
    if (interrupt_seen != 0) {
        std::signal(signal, SIG_DFL);
        std::raise(signal);
    }
    interrupt_seen = 1;
}

}  // namespace detail

// From here on the first Ctrl-C (or request to terminate) only sets interrupted(); the second ends the program at once.
inline void catch_interrupts() {
    std::signal(SIGINT, detail::note_interrupt);
    std::signal(SIGTERM, detail::note_interrupt);
}

inline bool interrupted() {
    return detail::interrupt_seen != 0;
}

}  // namespace support
