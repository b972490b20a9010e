// autodiff::var (reverse mode) as a scalar: every function with an own slope becomes one node of the expression tree.
// Forward mode has a header of its own, autodiff.hpp: the two halves of autodiff cannot share a translation unit.
//
// Such a node knows its first derivative alone, at the point where it was made. What asks for more, derivativesx() and
// update(), gets a grpo::error; comparisons and clips chose their branch at that point, too.
#pragma once

#include <memory>
#include <type_traits>

#include <autodiff/reverse/var.hpp>

#include <grpo/detail/check.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

namespace detail {

using autodiff_node = std::remove_cvref_t<decltype(*autodiff::var{}.expr)>;

struct autodiff_chain : autodiff_node {
    double slope;
    std::shared_ptr<autodiff_node> inner;

    autodiff_chain(double v, double s, const std::shared_ptr<autodiff_node>& x) : autodiff_node(v), slope(s), inner(x) {}

    void propagate(const double& outer) override { inner->propagate(outer * slope); }
    void propagatex(const std::shared_ptr<autodiff_node>&) override { refuse("derivativesx", "of second order"); }
    // Not in every version of autodiff, hence no override.
    virtual void update() { refuse("update", "at another point"); }

    [[noreturn]] static void refuse(const char* argument, const char* what) {
        raise(complain("scalar_traits<autodiff::var>", argument, "asks for derivatives %s, which a term does not have: "
                       "evaluate it again", what));
    }
};

}  // namespace detail

template <>
struct scalar_traits<autodiff::var> {
    using constant = double;
    using mask = bool;
    using element = double;
    static constexpr int lanes = 1;

    static double value(const autodiff::var& x) { return x.expr->val; }
    static autodiff::var chain(double v, double slope, const autodiff::var& x) {
        const std::shared_ptr<detail::autodiff_node> node = std::make_shared<detail::autodiff_chain>(v, slope, x.expr);
        return autodiff::var(node);
    }
};

}  // namespace grpo::inline v0
