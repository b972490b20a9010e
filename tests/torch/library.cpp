// The registered operations, as a library that tests/torch/*.py load.
#include <grpo/adapt/torch/register.hpp>

GRPO_TORCH_REGISTER(grpo);
