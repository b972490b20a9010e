// Whether operator new gives memory that the device sees.
#pragma once

namespace on_device {

inline bool sharing = false;

}  // namespace on_device
