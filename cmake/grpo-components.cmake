# Optional components: a target grpo::<component> that adds one third party to grpo::grpo.
# Nothing is looked for unless its component was asked for.

# Sets grpo_<component>_FOUND, and grpo_<component>_NOT_FOUND_MESSAGE when it could not be made.
# A second argument GLOBAL makes the targets visible to the whole build (used with add_subdirectory).
macro(grpo_define_component component)
  set(grpo_${component}_FOUND FALSE)
  if("${component}" STREQUAL "eigen")
    grpo_link_component(eigen Eigen3 Eigen3::Eigen "Debian: libeigen3-dev" ${ARGN})
  elseif("${component}" STREQUAL "xtensor")
    grpo_link_component(xtensor xtensor xtensor "Debian: libxtensor-dev" ${ARGN})
  elseif("${component}" STREQUAL "simd")
    # Some packages of xsimd 8 link xtl without finding it.
    find_package(xtl QUIET ${ARGN})
    grpo_link_component(simd xsimd xsimd "Debian: libxsimd-dev" ${ARGN})
  elseif("${component}" STREQUAL "torch")
    grpo_define_torch(${ARGN})
  elseif("${component}" STREQUAL "threads")
    grpo_link_component(threads Threads Threads::Threads "a C++ compiler with threads" ${ARGN})
  else()
    set(grpo_${component}_NOT_FOUND_MESSAGE
        "grpo has no component '${component}'; its components are eigen, xtensor, simd, threads and torch")
  endif()
endmacro()

# A macro, because variables that a find_package call leaves behind belong to the caller's scope.
macro(grpo_link_component component package target origin)
  find_package(${package} QUIET ${ARGN})
  grpo_link_found(${component} ${package} ${target} ${origin} ${ARGN})
endmacro()

macro(grpo_link_found component package target origin)
  if(TARGET ${target})
    if(NOT TARGET grpo::${component})
      add_library(grpo::${component} INTERFACE IMPORTED ${ARGN})
      set_target_properties(grpo::${component} PROPERTIES INTERFACE_LINK_LIBRARIES "grpo::grpo;${target}")
    endif()
    set(grpo_${component}_FOUND TRUE)
  else()
    set(grpo_${component}_NOT_FOUND_MESSAGE
        "grpo's component '${component}' needs the package ${package}, which was not found (${origin})")
  endif()
endmacro()

# LibTorch as one target. Its package sets variables such as TORCH_CXX_FLAGS for everybody; here they reach only those who
# link the component. (A wheel's targets may carry the standard library's ABI, which its users must share.)
macro(grpo_define_torch)
  find_package(Torch CONFIG QUIET ${ARGN})
  if(Torch_FOUND AND NOT TARGET grpo_libtorch)
    add_library(grpo_libtorch INTERFACE IMPORTED ${ARGN})
    set_target_properties(grpo_libtorch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}"
                                                   INTERFACE_LINK_LIBRARIES "${TORCH_LIBRARIES}")
  endif()
  grpo_link_found(torch Torch grpo_libtorch "Debian: libtorch-dev; or the CMAKE_PREFIX_PATH of a torch wheel" ${ARGN})
endmacro()
