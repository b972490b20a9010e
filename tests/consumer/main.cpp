#include <cstdio>

#include <grpo/grpo.hpp>
#ifdef COMPONENT_HEADER
#include COMPONENT_HEADER
#endif

int main() { std::printf("grpo %d.%d.%d\n", GRPO_VERSION_MAJOR, GRPO_VERSION_MINOR, GRPO_VERSION_PATCH); }
