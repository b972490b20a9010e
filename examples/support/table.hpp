// Aligned tables of text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

// Columns are as wide as their widest cell: the first one flush left, the others flush right.
class table {
public:
    explicit table(std::vector<std::string> header) : rows_{std::move(header)} {}

    // Missing cells at the end of a row are empty; ones beyond the header are left out.
    void add(std::vector<std::string> row) {
        row.resize(rows_.front().size());
        rows_.push_back(std::move(row));
    }

    std::string text(std::string_view indent = "  ") const {
        std::vector<std::size_t> widths(rows_.front().size());
        for (const auto& row : rows_)
            for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
        std::string all;
        for (std::size_t r = 0; r < rows_.size(); ++r) {
            all += line(rows_[r], widths, indent);
            if (r == 0) all += rule(widths, indent);
        }
        return all;
    }

private:
    // Characters, of which UTF-8 may take several bytes each.
    static std::size_t width(std::string_view cell) {
        return static_cast<std::size_t>(std::count_if(
            cell.begin(), cell.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
    }
    static std::string line(const std::vector<std::string>& row, const std::vector<std::size_t>& widths,
                            std::string_view indent) {
        std::string text(indent);
        for (std::size_t i = 0; i < row.size(); ++i) {
            const std::string gap(widths[i] - width(row[i]), ' ');
            text += i == 0 ? row[i] + gap : "  " + gap + row[i];
        }
        text.erase(text.find_last_not_of(' ') + 1);
        return text + '\n';
    }
    static std::string rule(const std::vector<std::size_t>& widths, std::string_view indent) {
        std::size_t whole = 2 * (widths.size() - 1);
        for (const std::size_t w : widths) whole += w;
        return std::string(indent) + std::string(whole, '-') + '\n';
    }

    std::vector<std::vector<std::string>> rows_;
};

}  // namespace support
