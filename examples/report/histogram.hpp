// Histograms as an SVG picture.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "rollouts.hpp"

namespace report {

struct panel {
    std::string title;
    std::string x_label;
    std::string y_label;
    std::vector<double> values;  // finite
};

// Steps of 1, 2 or 5 times a power of ten, about `wanted` of them over the range.
inline double tick_step(double range, int wanted) {
    const double rough = range / wanted;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    for (const double m : {1.0, 2.0, 5.0}) {
        if (rough <= m * power * (1 + 1e-9)) return m * power;
    }
    return 10 * power;
}

struct bins {
    double from = 0;
    double width = 1;
    std::vector<std::int64_t> count;

    // About `wanted` bins of a round width. They lie symmetrically about multiples of it, so 0 is the middle of one.
    static bins of(const std::vector<double>& values, int wanted) {
        bins b;
        b.count.assign(1, 0);
        if (values.empty()) return b;
        const auto [low, high] = std::minmax_element(values.begin(), values.end());
        const double range = *high - *low;
        b.width = range > 1e-300 && range < 1e300 ? tick_step(range, wanted) : 1.0;
        b.from = (std::floor(*low / b.width + 0.5) - 0.5) * b.width;
        double bars = std::floor((*high - b.from) / b.width) + 1;
        if (!(bars >= 1 && bars <= 4.0 * wanted)) {  // numbers so large that a round width is lost in them
            bars = 1;
            b.from = *low;
            b.width = std::max(1.0, range < 1e300 ? range : 1e300);
        }
        b.count.assign(static_cast<std::size_t>(bars), 0);
        for (const double v : values) {
            const double at = std::clamp((v - b.from) / b.width, 0.0, static_cast<double>(b.count.size() - 1));
            ++b.count[static_cast<std::size_t>(at)];
        }
        return b;
    }
    double to() const { return from + width * static_cast<double>(count.size()); }
};

inline std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '&')
            out += "&amp;";
        else if (c == '<')
            out += "&lt;";
        else if (c == '>')
            out += "&gt;";
        else if (static_cast<unsigned char>(c) >= ' ')
            out += c;
    }
    return out;
}

class picture {
public:
    static constexpr double width = 880;
    static constexpr double panel_height = 360;

    static std::string of(const std::vector<panel>& panels, int wanted_bins) {
        const double height = panel_height * static_cast<double>(panels.size());
        picture p;
        p.add(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
            "font-family=\"sans-serif\" fill=\"#222\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n",
            width, height);
        for (std::size_t i = 0; i < panels.size(); ++i) {
            p.draw(panels[i], panel_height * static_cast<double>(i), wanted_bins);
        }
        return p.text_ + "</svg>\n";
    }

private:
    static constexpr double left = 76, right = 24, top = 52, bottom = 58;
    static constexpr double digit = 7.2;

    template <class... Values>
    void add(fmt::format_string<Values...> form, Values&&... values) {
        text_ += fmt::format(form, std::forward<Values>(values)...);
    }
    void label(double x, double y, const char* anchor, int size, const std::string& words) {
        add("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\">{}</text>\n", x, y, anchor, size,
            escaped(words));
    }

    void draw(const panel& what, double offset, int wanted) {
        const bins b = bins::of(what.values, wanted);
        const double plot_width = width - left - right;
        const double plot_height = panel_height - top - bottom;
        const double base = offset + top + plot_height;
        const std::int64_t most = std::max<std::int64_t>(1, *std::max_element(b.count.begin(), b.count.end()));
        const double y_step = std::max(1.0, tick_step(static_cast<double>(most), 5));
        const double each = plot_width / static_cast<double>(b.count.size());
        const double number_width = digit * static_cast<double>(fmt::formatted_size("{}", most));
        const bool upright = number_width > each;
        const double y_top =
            static_cast<double>(most) * plot_height / (plot_height - (upright ? number_width + 12 : 20));
        const double mid = left + plot_width / 2;
        label(mid, offset + 28, "middle", 17, what.title);
        label(mid, base + 46, "middle", 14, what.x_label);
        add("<text transform=\"translate(20 {:.1f}) rotate(-90)\" text-anchor=\"middle\" font-size=\"14\">{}</text>\n",
            offset + top + plot_height / 2, escaped(what.y_label));
        for (double y = 0; y <= y_top * (1 + 1e-9); y += y_step) {
            const double at = base - y / y_top * plot_height;
            add("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", left, at,
                width - right, at);
            label(left - 8, at + 4, "end", 12, fmt::format("{:.0f}", y));
        }
        bars(b, base, each, plot_height / y_top, upright);
        axis(b, base, plot_width);
    }

    // Each bar carries its count, turned upright where the widest would touch its neighbours.
    void bars(const bins& b, double base, double each, double scale, bool upright) {
        for (std::size_t i = 0; i < b.count.size(); ++i) {
            if (b.count[i] == 0) continue;
            const double x = left + each * static_cast<double>(i);
            const double h = static_cast<double>(b.count[i]) * scale;
            const double from = b.from + b.width * static_cast<double>(i);
            add("<rect class=\"bar\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"#4477aa\">"
                "<title>{:.4g} to {:.4g}: {}</title></rect>\n",
                x + each * 0.06, base - h, each * 0.88, h, from, from + b.width, b.count[i]);
            if (upright) {
                add("<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" font-size=\"11\">{}</text>\n",
                    x + each / 2 + 4, base - h - 4, b.count[i]);
            } else {
                label(x + each / 2, base - h - 4, "middle", 11, fmt::format("{}", b.count[i]));
            }
        }
    }

    void axis(const bins& b, double base, double plot_width) {
        add("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#222\"/>\n", left, base,
            width - right, base);
        const double step = tick_step(b.to() - b.from, 10);
        const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
        for (double k = std::ceil(b.from / step); k * step <= b.to(); ++k) {
            const double x = left + (k * step - b.from) / (b.to() - b.from) * plot_width;
            add("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#222\"/>\n", x, base, x,
                base + 5);
            label(x, base + 20, "middle", 12, fmt::format("{:.{}f}", k * step + 0.0, decimals));
        }
    }

    std::string text_;
};

}  // namespace report
