// Eigen::AutoDiffScalar as a scalar, for fixed and dynamic numbers of derivatives.
//
// A dynamic AutoDiffScalar made from a plain number has an empty derivative vector, which Eigen counts as zero only where
// it meets a stored vector. So whatever is selected here gets the length of its alternative, filled with zeros; a result
// that depends on no variable at all still has an empty vector.
#pragma once

#include <concepts>

#include <Eigen/Core>
#include <unsupported/Eigen/AutoDiff>

#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

template <class Derivatives>
    requires std::floating_point<typename Derivatives::Scalar>
struct scalar_traits<Eigen::AutoDiffScalar<Derivatives>> {
    using number = Eigen::AutoDiffScalar<Derivatives>;
    using constant = typename Derivatives::Scalar;
    using mask = bool;
    using element = constant;
    static constexpr int lanes = 1;

    static constant value(const number& x) { return x.value(); }
    static number chain(constant v, constant slope, const number& x) {
        number r(v);
        r.derivatives() = slope * x.derivatives();
        return r;
    }
    static number select(bool m, const number& a, const number& b) {
        number r(m ? a : b);
        const number& other = m ? b : a;
        if (r.derivatives().size() == 0) r.derivatives().setZero(other.derivatives().size());
        return r;
    }
};

}  // namespace grpo::inline v0
