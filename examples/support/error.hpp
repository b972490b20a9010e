// What a program tells its user when an input is wrong.
#pragma once

#include <stdexcept>

namespace support {

// A sentence for the user: what is wrong with the input, and where.
struct bad_input : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace support
