// Tables that grow by a row at a time and can be taken up again where a run was broken off.
#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "files.hpp"

namespace support {

// Rows of a step and its numbers, each handed to the system whole before the next: a reader, or a run that is killed,
// never meets half a row. Numbers are written so that they are read back to the bit; NaN is an empty cell.
class csv_writer {
public:
    // A new table in the place of whatever is there. The first column is the step.
    csv_writer(const std::string& path, const std::vector<std::string>& columns)
        : csv_writer(path, columns, std::nullopt) {}

    // The table of a run that goes on after `last_step`: later rows and a half-written one are cut off. file_error
    // where the table is missing, has other columns, or ends before last_step.
    static csv_writer resumed(const std::string& path, const std::vector<std::string>& columns,
                              std::int64_t last_step) {
        return csv_writer(path, columns, last_step);
    }

    // file_error where the row does not fit on the disk; the table then ends with the row before.
    void row(std::int64_t step, std::span<const double> values) {
        if (values.size() + 1 != columns_)
            throw file_error(fmt::format("{}: a row of {} cells for {} columns", path_, values.size() + 1, columns_));
        std::string line = fmt::format("{}", step);
        for (const double x : values) line += std::isnan(x) ? "," : fmt::format(",{}", x);
        line += '\n';
        if (const int error = out_.write(line)) {
            const bool cut = ::ftruncate(out_.get(), static_cast<off_t>(size_)) == 0;
            throw file_error(fmt::format("{}: the row of step {} cannot be written ({}{})", path_, step, reason(error),
                                         cut ? "" : ", and what is there of it cannot be removed"));
        }
        size_ += line.size();
    }

    // Forces the rows so far to the disk.
    void sync() const {
        if (const int error = out_.sync()) throw file_error(fmt::format("{}: {}", path_, reason(error)));
    }

private:
    csv_writer(const std::string& path, const std::vector<std::string>& columns, std::optional<std::int64_t> last_step)
        : path_(path),
          columns_(columns.size()),
          size_(begin(path, fmt::format("{}\n", fmt::join(columns, ",")), last_step)),
          out_(path, O_WRONLY | O_APPEND) {
        if (!out_.is_open()) throw file_error(fmt::format("{}: cannot be written ({})", path, reason(errno)));
    }

    static std::size_t begin(const std::string& path, const std::string& header,
                             std::optional<std::int64_t> last_step) {
        const std::string text = last_step ? kept(path, header, *last_step) : header;
        write_file(path, text);
        return text.size();
    }

    static std::string kept(const std::string& path, const std::string& header, std::int64_t last_step) {
        const std::string all = read_file(path);
        if (!all.starts_with(header)) {
            throw file_error(fmt::format("{}:1: expected the columns {}, got {}", path,
                                         header.substr(0, header.size() - 1), all.substr(0, all.find('\n'))));
        }
        std::size_t end = header.size();
        std::int64_t before = 0;
        bool any = false;
        for (auto close = all.find('\n', end); close != std::string::npos; close = all.find('\n', end)) {
            const auto step = step_of(std::string_view(all).substr(end, close - end));
            if (!step || *step > last_step) break;
            before = *step;
            any = true;
            end = close + 1;
        }
        if (last_step > 0 && (!any || before < last_step)) {
            throw file_error(fmt::format("{}: the rows end with step {}, but the run goes on after step {}", path,
                                         before, last_step));
        }
        return all.substr(0, end);
    }

    static std::optional<std::int64_t> step_of(std::string_view line) {
        const std::string_view cell = line.substr(0, line.find(','));
        std::int64_t step = 0;
        const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), step);
        if (error != std::errc() || end != cell.data() + cell.size()) return std::nullopt;
        return step;
    }

    std::string path_;
    std::size_t columns_;
    std::size_t size_;
    detail::descriptor out_;
};

}  // namespace support
