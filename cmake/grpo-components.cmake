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
  elseif("${component}" STREQUAL "blas")
    grpo_define_blas(${ARGN})
  elseif("${component}" STREQUAL "onednn")
    grpo_define_onednn(${ARGN})
  elseif("${component}" STREQUAL "cuda")
    grpo_define_cuda(cuda CUDA::cudart ${ARGN})
  elseif("${component}" STREQUAL "cublas")
    grpo_define_cuda(cublas CUDA::cublas ${ARGN})
  elseif("${component}" STREQUAL "nvrtc")
    grpo_define_nvrtc(${ARGN})
  elseif("${component}" STREQUAL "threads")
    grpo_link_component(threads Threads Threads::Threads "a C++ compiler with threads" ${ARGN})
  else()
    set(grpo_${component}_NOT_FOUND_MESSAGE
        "grpo has no component '${component}'; it has eigen, xtensor, simd, threads, torch, blas, onednn, cuda, cublas and nvrtc")
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

# A BLAS with its C interface.
macro(grpo_define_blas)
  find_package(BLAS QUIET ${ARGN})
  if(TARGET BLAS::BLAS AND NOT TARGET grpo_cblas)
    grpo_make_cblas(${ARGN})
  endif()
  grpo_link_found(blas BLAS grpo_cblas "with cblas.h; Debian: libopenblas-dev" ${ARGN})
endmacro()

# The target grpo_cblas, if there are a cblas.h and its functions: in the BLAS itself, or in a library beside it.
function(grpo_make_cblas)
  find_path(GRPO_CBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas blis flexiblas)
  mark_as_advanced(GRPO_CBLAS_INCLUDE)
  if(NOT GRPO_CBLAS_INCLUDE)
    return()
  endif()
  include(CheckCXXSymbolExists)
  set(CMAKE_REQUIRED_QUIET ON)
  set(CMAKE_REQUIRED_INCLUDES ${GRPO_CBLAS_INCLUDE})
  set(libraries BLAS::BLAS)
  set(CMAKE_REQUIRED_LIBRARIES ${libraries})
  check_cxx_symbol_exists(cblas_sgemm cblas.h GRPO_BLAS_HAS_CBLAS)
  if(NOT GRPO_BLAS_HAS_CBLAS)
    find_library(GRPO_CBLAS_LIBRARY cblas)
    mark_as_advanced(GRPO_CBLAS_LIBRARY)
    if(NOT GRPO_CBLAS_LIBRARY)
      return()
    endif()
    list(PREPEND libraries ${GRPO_CBLAS_LIBRARY})
  endif()
  add_library(grpo_cblas INTERFACE IMPORTED ${ARGN})
  set_target_properties(grpo_cblas PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${GRPO_CBLAS_INCLUDE}"
                                              INTERFACE_LINK_LIBRARIES "${libraries}")
endfunction()

# oneDNN by its header and its library: the package's own configuration in Debian stops the whole project where OpenCL's
# headers are not installed. A target that the project has made already is taken.
macro(grpo_define_onednn)
  if(NOT TARGET grpo_onednn)
    grpo_make_onednn(${ARGN})
  endif()
  grpo_link_found(onednn dnnl grpo_onednn "Debian: libdnnl-dev" ${ARGN})
endmacro()

function(grpo_make_onednn)
  find_path(GRPO_ONEDNN_INCLUDE dnnl.hpp)
  find_library(GRPO_ONEDNN_LIBRARY dnnl)
  mark_as_advanced(GRPO_ONEDNN_INCLUDE GRPO_ONEDNN_LIBRARY)
  if(TARGET DNNL::dnnl)
    add_library(grpo_onednn INTERFACE IMPORTED ${ARGN})
    set_target_properties(grpo_onednn PROPERTIES INTERFACE_LINK_LIBRARIES DNNL::dnnl)
  elseif(GRPO_ONEDNN_INCLUDE AND GRPO_ONEDNN_LIBRARY)
    add_library(grpo_onednn INTERFACE IMPORTED ${ARGN})
    set_target_properties(grpo_onednn PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${GRPO_ONEDNN_INCLUDE}"
                                                 INTERFACE_LINK_LIBRARIES "${GRPO_ONEDNN_LIBRARY}")
  endif()
endfunction()

# NVIDIA's run-time library, and its matrix products. Whoever links these enables the language CUDA. The toolkit is found by
# its compiler, which need not be on the PATH.
macro(grpo_define_cuda component target)
  if(NOT CUDAToolkit_FOUND)
    find_package(CUDAToolkit QUIET)
  endif()
  if("${ARGN}" STREQUAL "GLOBAL" AND TARGET CUDA::cudart)
    foreach(grpo_target IN ITEMS CUDA::toolkit CUDA::cudart CUDA::cublas CUDA::cublasLt)
      if(TARGET ${grpo_target})
        set_target_properties(${grpo_target} PROPERTIES IMPORTED_GLOBAL TRUE)
      endif()
    endforeach()
  endif()
  grpo_link_found(${component} CUDAToolkit ${target} "the CUDA Toolkit 12 or newer" ${ARGN})
  if(TARGET grpo::${component})
    set_property(TARGET grpo::${component} APPEND PROPERTY INTERFACE_LINK_LIBRARIES CUDA::cudart)
  endif()
endmacro()

# Kernels compiled where a program runs: NVIDIA's headers to build against, and nothing of NVIDIA's to link. The headers of
# grpo are embedded in the program, unless GRPO_NVRTC_EMBED is OFF: it then reads them where they lie.
option(GRPO_NVRTC_EMBED "Programs that link grpo::nvrtc carry the text of grpo's headers" ON)
mark_as_advanced(GRPO_NVRTC_EMBED)
macro(grpo_define_nvrtc)
  if(NOT TARGET grpo_cuda_driver)
    grpo_make_cuda_driver(${ARGN})
  endif()
  grpo_link_found(nvrtc cuda.h grpo_cuda_driver "and nvrtc.h, of the CUDA Toolkit 12 or newer" ${ARGN})
endmacro()

function(grpo_make_cuda_driver)
  find_path(GRPO_CUDA_DRIVER_INCLUDE NAMES nvrtc.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_ROOT}/include
            $ENV{CUDA_PATH}/include PATHS /usr/local/cuda/include)
  mark_as_advanced(GRPO_CUDA_DRIVER_INCLUDE)
  if(NOT GRPO_CUDA_DRIVER_INCLUDE OR NOT EXISTS ${GRPO_CUDA_DRIVER_INCLUDE}/cuda.h)
    return()
  endif()
  set(include ${GRPO_CUDA_DRIVER_INCLUDE})
  if(GRPO_NVRTC_EMBED)
    grpo_embed_headers(${CMAKE_BINARY_DIR}/grpo_embedded)
    list(APPEND include ${CMAKE_BINARY_DIR}/grpo_embedded)
  endif()
  add_library(grpo_cuda_driver INTERFACE IMPORTED ${ARGN})
  set_target_properties(grpo_cuda_driver PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include}"
                                                    INTERFACE_LINK_LIBRARIES "${CMAKE_DL_LIBS}")
endfunction()

# Writes folder/grpo/exec/nvrtc/embedded.hpp, the headers that kernels are compiled from as strings.
function(grpo_embed_headers folder)
  get_target_property(include grpo::grpo HEADER_DIRS)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${include} ${include}/grpo/*.hpp ${include}/grpo/*.cuh)
  list(FILTER headers EXCLUDE REGEX "^grpo/adapt/")
  list(TRANSFORM headers PREPEND ${include}/ OUTPUT_VARIABLE files)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files})
  set(name ${folder}/grpo/exec/nvrtc/embedded.hpp)
  string(CONCAT text "// Written by the build: grpo's headers, for kernels that are compiled where the program runs.\n#pragma once\n"
         "#define GRPO_NVRTC_EMBEDDED\nnamespace grpo::inline v0::detail {\n"
         "struct embedded_header {\n    const char* name;\n    const char* text;\n};\n"
         "inline constexpr embedded_header embedded_headers[] = {\n")
  foreach(header IN LISTS headers)
    file(READ ${include}/${header} content)
    string(APPEND text "{\"${header}\", R\"grpo_header(${content})grpo_header\"},\n")
  endforeach()
  string(APPEND text "};\n}\n")
  file(WRITE ${name}.new "${text}")
  file(COPY_FILE ${name}.new ${name} ONLY_IF_DIFFERENT)
endfunction()
