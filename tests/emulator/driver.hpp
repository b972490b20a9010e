// What the driver of driver.cpp pretends to be, and what it was asked for. A test fills it in and reads it.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

struct fake_cuda {
    struct launch {
        std::string kernel;
        unsigned grid, threads, cluster, shared_bytes;
        std::vector<std::byte> body;  // the bytes of the first parameter: as many as body_bytes
    };
    // What it pretends.
    int device = 0;
    int capability = 90;
    int multiprocessors = 132;
    int clusters = 60;                // at once
    int blocks = 2;                   // on a multiprocessor
    int device_of_stream = 0;
    const void* on_host = nullptr;    // memory of the host; all other is the device's
    const void* on_another = nullptr; // memory of device 3
    bool (*on_device)(const void*) = nullptr;  // if set, says what is not the host's
    int launch_fails = 0;             // with this code
    int query_fails = 0;              // likewise, for where memory lies
    std::size_t body_bytes = 0;
    std::vector<std::function<void()>>* captured = nullptr;  // where work goes, instead of being done
    // What it saw.
    int loads = 0;
    int cleared = 0;
    std::vector<launch> launches{};
};
