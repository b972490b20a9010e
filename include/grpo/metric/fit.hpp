// How well one series follows another: explained variance of a critic, correlation of two engines' probabilities. Both come
// from centred moments that merge, so parts of a batch add up.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/correction/log_weight.hpp>
#include <grpo/exec/serial.hpp>

namespace grpo::inline v0 {

// Means and centred second moments of pairs (x, y); merged as Chan, Golub and LeVeque, 1983.
struct pair_moments {
    double n = 0;
    double mean_x = 0;
    double mean_y = 0;
    double xx = 0;  // Σ (x - mean)²
    double yy = 0;
    double xy = 0;

    GRPO_HD void add(double x, double y) {
        n += 1;
        const double dx = x - mean_x;
        const double dy = y - mean_y;
        mean_x += dx / n;
        mean_y += dy / n;
        xx += dx * (x - mean_x);
        yy += dy * (y - mean_y);
        xy += dx * (y - mean_y);
    }
    GRPO_HD friend pair_moments operator+(const pair_moments& a, const pair_moments& b) {
        if (b.n == 0) return a;
        if (a.n == 0) return b;
        pair_moments r;
        r.n = a.n + b.n;
        const double dx = b.mean_x - a.mean_x;
        const double dy = b.mean_y - a.mean_y;
        const double share = b.n / r.n;
        r.mean_x = a.mean_x + dx * share;
        r.mean_y = a.mean_y + dy * share;
        r.xx = a.xx + b.xx + dx * dx * a.n * share;
        r.yy = a.yy + b.yy + dy * dy * a.n * share;
        r.xy = a.xy + b.xy + dx * dy * a.n * share;
        return r;
    }
    // Pearson's correlation; 0 where either does not vary.
    double correlation() const {
        const double spread = ::sqrt(xx) * ::sqrt(yy);
        return spread > 0 ? xy / spread : 0.0;
    }
};

// Moments of x = R and y = R - V.
struct value_fit {
    pair_moments of;
    std::int64_t nonfinite = 0;  // active tokens left out because R or V is not finite

    // 1 - var(R - V) / (var(R) + eps); 0 where that denominator is 0. verl: ddof 1, eps 1e-5. With eps = 0 the divisors
    // cancel.
    double explained_variance(double eps = 0.0, int ddof = 0) const {
        const double divisor = of.n - static_cast<double>(ddof);
        if (!(divisor > 0)) return 0.0;
        const double scale = of.xx / divisor + eps;
        return scale > 0 ? 1.0 - of.yy / divisor / scale : 0.0;
    }
    GRPO_HD friend value_fit operator+(const value_fit& a, const value_fit& b) {
        return {a.of + b.of, a.nonfinite + b.nonfinite};
    }
};

// Moments of x = e^logp_old and y = e^logp_rollout.
struct probability_fit {
    pair_moments of;
    std::int64_t missing = 0;    // active tokens left out because the sampler did not report logp_rollout
    std::int64_t nonfinite = 0;  // active tokens left out for any other reason

    double correlation() const { return of.correlation(); }
    GRPO_HD friend probability_fit operator+(const probability_fit& a, const probability_fit& b) {
        return {a.of + b.of, a.missing + b.missing, a.nonfinite + b.nonfinite};
    }
};

namespace detail {

// A total that merges by its own +, as a monoid.
template <class Total>
struct adding {
    template <class>
    struct state : Total {};
    template <class State>
    GRPO_HD static void merge(State& a, const State& b) {
        static_cast<Total&>(a) = static_cast<const Total&>(a) + static_cast<const Total&>(b);
    }
};

// The pairs of one row; each lane adds up its own in order.
template <class Batch, class Total, unsigned Needs>
struct fit_rows {
    Batch data;

    GRPO_HD std::int64_t entries() const { return data.layout.extent(); }

    template <class Team>
    GRPO_HD Total operator()(Team& team, std::int64_t row) const {
        using V = typename Batch::compute;
        typename adding<Total>::template state<double> total;
        token<V> t;
        V of_row = 0;
        data.template read_row<Needs>(row, t, of_row);
        team.template each<V>(data.layout.begin(row), data.layout.end(row), [&](cursor<V> at) {
            if (!data.layout.active(at)) return;
            V probe = of_row;
            data.template read_token<Needs>(at, t, probe);
            add(total, t, is_nonfinite(probe));
        });
        return team.template combine<adding<Total>>(total);
    }

private:
    template <class V>
    GRPO_HD static void add(value_fit& f, const token<V>& t, bool bad) {
        f.nonfinite += bad ? 1 : 0;
        const double r = static_cast<double>(t.returns);
        if (!bad) f.of.add(r, r - static_cast<double>(t.value));
    }
    template <class V>
    GRPO_HD static void add(probability_fit& f, const token<V>& t, bool bad) {
        const bool gone = is_nan(t.logp_rollout) && !is_nonfinite(t.logp_old);
        f.missing += gone ? 1 : 0;
        f.nonfinite += bad && !gone ? 1 : 0;
        if (!bad && !gone) f.of.add(::exp(static_cast<double>(t.logp_old)), ::exp(static_cast<double>(t.logp_rollout)));
    }
};

template <unsigned Needs, class Total, class Exec, class Batch>
total_of<Exec, Total> fit(const Exec& exec, const Batch& b, const char* function) {
    static_assert((Batch::has & Needs) == Needs, "grpo: this metric needs two inputs that the batch lacks: values and "
                                                 "returns, or logp_old and logp_rollout");
    require(check_batch(exec, function, b, Needs));
    return fold_rows<Total>(exec, b.layout.rows(), fit_rows<Batch, Total, Needs>{b});
}

}  // namespace detail

// How well the critic's values explain the returns: batch(shape, values(v), returns(r)). (An executor of another memory
// returns where the moments will be.)
template <class Exec, shape Shape, class... Fields>
detail::total_of<Exec, value_fit> measure_value_fit(Exec&& exec, const batch<Shape, Fields...>& b) {
    return detail::fit<input::value::bit | input::returns::bit, value_fit>(exec, b, "measure_value_fit");
}
template <shape Shape, class... Fields>
value_fit measure_value_fit(const batch<Shape, Fields...>& b) {
    return measure_value_fit(serial{}, b);
}

// How well the trainer's and the rollout engine's probabilities agree: batch(shape, logp_old(o), logp_rollout(r)).
template <class Exec, shape Shape, class... Fields>
detail::total_of<Exec, probability_fit> measure_probability_fit(Exec&& exec, const batch<Shape, Fields...>& b) {
    return detail::fit<detail::correction_needs, probability_fit>(exec, b, "measure_probability_fit");
}
template <shape Shape, class... Fields>
probability_fit measure_probability_fit(const batch<Shape, Fields...>& b) {
    return measure_probability_fit(serial{}, b);
}

}  // namespace grpo::inline v0
