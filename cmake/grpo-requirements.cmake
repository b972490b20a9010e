# Which third parties a source file of this project needs, read from the file itself.
# A file that guards an include with __has_include gets the library when it is there and builds without it.

find_package(Threads REQUIRED)
find_package(Eigen3 QUIET NO_MODULE)
find_package(xtensor QUIET)
find_package(xtl QUIET)
find_package(xsimd QUIET)
find_package(doctest QUIET)
find_package(nlohmann_json QUIET)
find_package(CLI11 QUIET)
find_package(fmt QUIET)
find_package(benchmark QUIET)
find_package(autodiff QUIET)

# LibTorch, for the adapter's tests and for the examples that train.
grpo_define_component(torch)

# Matrix products.
grpo_define_component(blas)
grpo_define_component(onednn)

# Kernels that are compiled at run time. Tests read the headers where they lie.
set(GRPO_NVRTC_EMBED OFF)
grpo_define_component(nvrtc)

# Only the header of ceres::Jet is needed; the solver's package would bring a dozen libraries.
find_path(GRPO_CERES_INCLUDE ceres/jet.h)
mark_as_advanced(GRPO_CERES_INCLUDE)
if(GRPO_CERES_INCLUDE AND TARGET Eigen3::Eigen)
  add_library(grpo_ceres_jet INTERFACE IMPORTED)
  target_include_directories(grpo_ceres_jet INTERFACE ${GRPO_CERES_INCLUDE})
  target_link_libraries(grpo_ceres_jet INTERFACE Eigen3::Eigen)
endif()

# name | target | Debian package | what an #include of it looks like
set(GRPO_THIRD_PARTIES
    "doctest|doctest::doctest|doctest-dev|doctest/"
    "nlohmann_json|nlohmann_json::nlohmann_json|nlohmann-json3-dev|nlohmann/"
    "CLI11|CLI11::CLI11|libcli11-dev|CLI/"
    "fmt|fmt::fmt|libfmt-dev|fmt/"
    "Google Benchmark|benchmark::benchmark|libbenchmark-dev|benchmark/"
    "Eigen|Eigen3::Eigen|libeigen3-dev|Eigen/,unsupported/Eigen/,grpo/adapt/([a-z]+/)?eigen"
    "xtensor|xtensor|libxtensor-dev|xtensor/,grpo/adapt/xtensor"
    "xsimd|xsimd|libxsimd-dev|xsimd/,grpo/adapt/scalar/xsimd,grpo/exec/simd"
    "BLAS|grpo_cblas|libopenblas-dev|cblas.h,grpo/adapt/gemm/blas"
    "oneDNN|grpo_onednn|libdnnl-dev|dnnl.hpp,oneapi/dnnl/,grpo/adapt/gemm/onednn"
    "Ceres|grpo_ceres_jet|libceres-dev|ceres/,grpo/adapt/scalar/ceres"
    "CUDA's headers|grpo_cuda_driver|nvidia-cuda-toolkit|cuda.h,nvrtc.h,grpo/exec/nvrtc"
    "LibTorch|grpo_libtorch|libtorch-dev|torch/,ATen/,grpo/adapt/torch"
    "autodiff|autodiff::autodiff|no Debian package|autodiff/,grpo/adapt/scalar/autodiff")

# FILES: the sources and headers of one program. OUT_TARGETS: libraries to link. OUT_MISSING: what is not installed and
# cannot be done without ("" when complete).
function(grpo_requirements files out_targets out_missing)
  set(includes)
  foreach(file IN LISTS files)
    file(STRINGS ${file} lines REGEX "^[ \t]*#[ \t]*(include|if|elif).*<")
    list(APPEND includes ${lines})
  endforeach()
  set(targets)
  set(missing)
  foreach(row IN LISTS GRPO_THIRD_PARTIES)
    string(REPLACE "|" ";" row "${row}")
    list(POP_FRONT row name target package prefixes)
    string(REPLACE "," "|<" prefixes "<${prefixes}")
    if(NOT includes MATCHES "${prefixes}")
      continue()
    endif()
    if(TARGET ${target})
      list(APPEND targets ${target})
    elseif(NOT includes MATCHES "__has_include\\((${prefixes})")
      list(APPEND missing "${name} (${package})")
    endif()
  endforeach()
  list(JOIN missing ", " missing)
  set(${out_targets} ${targets} PARENT_SCOPE)
  set(${out_missing} "${missing}" PARENT_SCOPE)
endfunction()

# Everything ctest cannot run here is still listed by it, as skipped and with its reason.
function(grpo_add_skipped_test name reason)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${reason}")
  set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()

# Warnings are for our own code; third parties come as system headers.
add_library(grpo_warnings INTERFACE)
target_compile_options(grpo_warnings INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror)
