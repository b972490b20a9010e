// Notices that training has collapsed, and goes back to where it was good.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <nlohmann/json.hpp>

namespace calculator {

// Watches the share of right responses. Its running mean forgets by a tenth a step; a collapse is a mean below
// `floor` times the best one so far, or a gradient that is not finite.
class guard {
public:
    static constexpr double floor = 0.75;
    static constexpr double forgets = 0.1;
    static constexpr std::int64_t settling = 5;  // steps before the mean says anything

    enum class verdict { good, better, collapsed };

    verdict see(double right, bool finite) {
        if (!finite) return verdict::collapsed;
        mean_ = seen_ == 0 ? right : mean_ + forgets * (right - mean_);
        ++seen_;
        if (seen_ < settling) return verdict::good;
        if (mean_ > best_) {
            best_ = mean_;
            // The mean lags behind: weights that are already on their way down are not kept.
            return right >= mean_ ? verdict::better : verdict::good;
        }
        return mean_ < floor * best_ ? verdict::collapsed : verdict::good;
    }

    // Starts anew at half the rate; what was best stays the measure.
    void back() {
        seen_ = 0;
        scale_ *= 0.5;
        ++times_;
    }

    double scale() const { return scale_; }
    // The share of the rate after a fall back, whose first steps warm the optimiser up again.
    double warmth(std::int64_t steps) const {
        return times_ == 0 || seen_ >= steps ? 1.0 : static_cast<double>(seen_ + 1) / static_cast<double>(steps);
    }
    double mean() const { return mean_; }
    double best() const { return best_; }
    std::int64_t times() const { return times_; }

    nlohmann::ordered_json state() const {
        return {{"mean", mean_}, {"best", best_}, {"seen", seen_}, {"scale", scale_}, {"times", times_}};
    }
    void restore(const nlohmann::ordered_json& j) {
        mean_ = j.at("mean");
        best_ = j.at("best");
        seen_ = j.at("seen");
        scale_ = j.at("scale");
        times_ = j.at("times");
    }

private:
    double mean_ = 0;
    double best_ = 0;
    std::int64_t seen_ = 0;
    double scale_ = 1;
    std::int64_t times_ = 0;
};

}  // namespace calculator
