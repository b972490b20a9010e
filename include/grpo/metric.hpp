// Metrics that are not a loss's own: evaluation over groups of samples, and fits of one series to another. A loss's
// diagnostics come from objective::diagnosed(), rollout mismatch from measure_mismatch (correction.hpp).
#pragma once

#include <grpo/metric/fit.hpp>
#include <grpo/metric/majority.hpp>
#include <grpo/metric/sampling.hpp>
