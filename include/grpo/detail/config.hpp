// Version, ABI namespace and the host/device marker. Everything else in grpo includes this.
#pragma once

#define GRPO_VERSION_MAJOR 0
#define GRPO_VERSION_MINOR 1
#define GRPO_VERSION_PATCH 0

// Functions that also run inside a kernel. Not meant for users, but a term may carry it to be usable on a device.
#if defined(__CUDACC__)
#define GRPO_HD __host__ __device__
#else
#define GRPO_HD
#endif

// Define GRPO_CHECKED to 1 to add the O(n) checks (offsets monotone, rewards finite) to every entry point.
#ifndef GRPO_CHECKED
#define GRPO_CHECKED 0
#endif

// The inline namespace changes only when the layout of a public type does: mixing versions is then a link error.
namespace grpo::inline v0 {}
