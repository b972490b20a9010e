// How many threads matrix products use.
#pragma once

#include <dlfcn.h>

namespace support {

// OpenBLAS, where the program has loaded it, takes all cores for products far too small to gain from them; LibTorch's
// own setting does not reach it. Nothing happens with another BLAS.
inline void set_blas_threads(int n) {
    using setter = void (*)(int);
    if (void* const found = ::dlsym(RTLD_DEFAULT, "openblas_set_num_threads")) reinterpret_cast<setter>(found)(n);
}

}  // namespace support
