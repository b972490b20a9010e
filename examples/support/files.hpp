// Files that are whole or not there: written beside their place, forced to the disk, and renamed onto it.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "error.hpp"

namespace support {

// A sentence with the path and the system's reason.
struct file_error : bad_input {
    using bad_input::bad_input;
};

inline std::string reason(int error) {
    return std::strerror(error);
}

namespace detail {

// An open file; what is not closed is closed by the destructor, without a look at the outcome.
class descriptor {
public:
    descriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    ~descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }

    bool is_open() const { return fd_ >= 0; }
    int get() const { return fd_; }

    // Each gives 0, or the system's error number.
    int write(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return n < 0 ? errno : ENOSPC;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        return 0;
    }
    int sync() const { return ::fsync(fd_) == 0 || errno == EINVAL || errno == EROFS ? 0 : errno; }
    int close() {
        const int closed = ::close(std::exchange(fd_, -1));
        return closed == 0 ? 0 : errno;
    }

private:
    int fd_;
};

inline int first_error(int a, int b) {
    return a != 0 ? a : b;
}

// The new name survives a loss of power once the folder is on the disk too.
inline void sync_folder_of(const std::string& path) {
    const auto folder = std::filesystem::path(path).parent_path();
    const descriptor d(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
    if (d.is_open()) d.sync();
}

}  // namespace detail

// Puts `bytes` in the place of a file. file_error, with the old file as it was and nothing left beside it, where that
// cannot be done in full.
inline void write_file(const std::string& path, std::string_view bytes) {
    const std::string beside = fmt::format("{}.{}.tmp", path, ::getpid());
    detail::descriptor out(beside, O_WRONLY | O_CREAT | O_TRUNC);
    if (!out.is_open()) throw file_error(fmt::format("{}: cannot be written ({})", path, reason(errno)));
    int error = out.write(bytes);
    if (error == 0) error = out.sync();
    error = detail::first_error(error, out.close());
    if (error == 0 && std::rename(beside.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) {
        ::unlink(beside.c_str());
        throw file_error(fmt::format("{}: cannot be written ({})", path, reason(error)));
    }
    detail::sync_folder_of(path);
}

// The bytes of a file; file_error where it cannot be read to its end.
inline std::string read_file(const std::string& path) {
    const detail::descriptor in(path, O_RDONLY);
    if (!in.is_open()) throw file_error(fmt::format("{}: cannot be opened for reading ({})", path, reason(errno)));
    std::string bytes;
    std::string part(std::size_t{1} << 16, '\0');
    for (;;) {
        const ssize_t n = ::read(in.get(), part.data(), part.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw file_error(fmt::format("{}: cannot be read ({})", path, reason(errno)));
        if (n == 0) return bytes;
        bytes.append(part, 0, static_cast<std::size_t>(n));
    }
}

// Makes a folder and those above it.
inline void make_folder(const std::string& path) {
    std::error_code failed;
    std::filesystem::create_directories(path, failed);
    if (!failed && !std::filesystem::is_directory(path, failed) && !failed)
        failed = std::make_error_code(std::errc::not_a_directory);
    if (failed) throw file_error(fmt::format("{}: no folder can be made there ({})", path, failed.message()));
}

}  // namespace support
