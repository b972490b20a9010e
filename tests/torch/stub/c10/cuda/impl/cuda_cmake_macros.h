// What a LibTorch that was built for CUDA says of how it was built: nothing here.
#pragma once
