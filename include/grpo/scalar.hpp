// Scalars: what a formula is evaluated on.
//
// A formula is written once, on a type S. Evaluated on float or double it gives the value; on dual<float, N> the value
// and N slopes in the same pass; on a SIMD pack, many values at once; on a foreign automatic-differentiation type,
// whatever that type computes. `scalar_traits` is the one thing a new scalar specialises (see adapt/scalar/).
//
// House rules for formulas: name the type (`const S r = ...`, never auto), no `if` or `?:` on a scalar (use
// math::select, min, max, clamp), only math:: functions, mixed arithmetic only between S and constant_t<S>.
#pragma once

#include <grpo/scalar/dual.hpp>
#include <grpo/scalar/math.hpp>
