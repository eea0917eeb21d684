# GPU backends as plugins: the same device sources compiled as CUDA (libmarketplace_cuda.so) or as HIP
# (libmarketplace_hip.so) and opened at run time, so that one build works with any or no GPU.
set(MARKETPLACE_CUDA AUTO CACHE STRING "Build the CUDA plugin: AUTO (nvcc and a driver are here), ON, OFF")
set(MARKETPLACE_HIP AUTO CACHE STRING "Build the HIP plugin: AUTO (hipcc and a driver are here), ON, OFF")
set(MARKETPLACE_CUDA_ARCHITECTURES "" CACHE STRING
    "Compute capabilities, PTX of the last one too; if empty those of this machine (AUTO), or 80 and 90 (ON)")
set(MARKETPLACE_HIP_ARCHITECTURES "" CACHE STRING
    "AMD chips; if empty those of this machine (AUTO), or all that we name and the compiler knows (ON)")
set(MARKETPLACE_CUDA_FLAGS "" CACHE STRING "More flags for nvcc")
set(MARKETPLACE_CUDA_RUNTIME static CACHE STRING "CUDA's runtime: static (in the plugin) or shared")
set(MARKETPLACE_HIP_FLAGS "" CACHE STRING "More flags for the HIP compiler")
set(MARKETPLACE_PLUGIN_DESTINATION marketplace CACHE STRING "Folder that plugins are installed to")
find_program(MARKETPLACE_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATH_SUFFIXES bin
             PATHS /usr/local/cuda)
find_program(MARKETPLACE_HIPCC hipcc HINTS ENV ROCM_PATH ENV HIP_PATH PATH_SUFFIXES bin
             PATHS /opt/rocm)
include(gpu_choice)

# How a vendor's compiler is called: <vendor>_compile for kernels, <vendor>_host for the sources without,
# which need no pass per chip, <vendor>_link. The chips are those in ARGN.
function(marketplace_gpu_commands vendor)
  list(JOIN ARGN "/" architectures)
  string(TOUPPER "${vendor}" upper)
  set(define "-DMARKETPLACE_${upper}_ARCHITECTURES=\"${architectures}\"")
  set(cuda "${MARKETPLACE_NVCC}" -std=c++20 -O3 -I "${PROJECT_SOURCE_DIR}/csrc" ${define}
      -Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra ${MARKETPLACE_CUDA_FLAGS})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
    list(APPEND cuda -Xcompiler -Wno-restrict)  # false alarms, see warnings.cmake
  endif()
  set(hip "${CMAKE_COMMAND}" -E env HIP_PLATFORM=amd "${MARKETPLACE_HIPCC}"
      ${MARKETPLACE_HIP_FLAGS})
  set(hip_compile ${hip} -x hip -D__HIP_PLATFORM_AMD__ ${define} -std=c++20 -O3 -ffp-contract=off
      -I "${PROJECT_SOURCE_DIR}/csrc" -fPIC -fvisibility=hidden -Wall -Wextra)
  if(MARKETPLACE_WARNINGS_AS_ERRORS)
    list(APPEND cuda -Werror all-warnings)
    list(APPEND hip_compile -Werror)
  endif()
  set(cuda_host ${cuda} -x c++ PARENT_SCOPE)
  # "contract": two roundings stay two, as on the CPU (cmake/defaults.cmake)
  list(APPEND cuda -fmad=false)
  set(targets)
  foreach(architecture IN LISTS ARGN)
    list(APPEND targets -gencode "arch=compute_${architecture},code=sm_${architecture}")
  endforeach()
  list(GET ARGN -1 newest)
  list(APPEND targets -gencode "arch=compute_${newest},code=compute_${newest}")
  set(cuda_compile ${cuda} ${targets} PARENT_SCOPE)
  set(cuda_link ${cuda} -cudart ${MARKETPLACE_CUDA_RUNTIME} ${targets} PARENT_SCOPE)
  set(targets)
  foreach(architecture IN LISTS ARGN)
    list(APPEND targets "--offload-arch=${architecture}")
  endforeach()
  set(hip_compile ${hip_compile} ${targets} PARENT_SCOPE)
  # clang names a variable after the id of a file, which it gives only what has a part for devices
  set(hip_host ${hip_compile} ${targets} --cuda-host-only -Xclang "-cuid=<source>" PARENT_SCOPE)
  set(hip_link ${hip} --hip-link ${targets} PARENT_SCOPE)
endfunction()

# libmarketplace_<vendor>.so from the device sources (paths relative to csrc/gpu), for the chips in ARGN.
function(marketplace_gpu_plugin vendor)
  marketplace_gpu_commands(${vendor} ${ARGN})
  set(objects)
  foreach(source IN LISTS MARKETPLACE_GPU_SOURCES)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${vendor}/${source}.o")
    get_filename_component(folder "${object}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    set(path "${PROJECT_SOURCE_DIR}/csrc/gpu/${source}")
    set(compile ${${vendor}_compile})
    if(NOT source MATCHES "^kernels/")
      string(REPLACE "<source>" "${source}" compile "${${vendor}_host}")
    endif()
    add_custom_command(
      OUTPUT "${object}"
      COMMAND ${compile} "-DMARKETPLACE_VERSION=\"${PROJECT_VERSION}\"" -MD -MF "${object}.d"
              -c "${path}" -o "${object}"
      DEPENDS "${path}" DEPFILE "${object}.d" COMMENT "${vendor}: ${source}" VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  set(plugin "${CMAKE_CURRENT_BINARY_DIR}/libmarketplace_${vendor}.so")
  add_custom_command(
    OUTPUT "${plugin}"
    COMMAND ${${vendor}_link} -shared ${objects} "$<TARGET_FILE:marketplace_gpu_host>"
            "$<TARGET_FILE:marketplace_graph>"
            -Xlinker "--version-script=${PROJECT_SOURCE_DIR}/csrc/gpu/plugin.map" -o "${plugin}"
    DEPENDS ${objects} marketplace_gpu_host marketplace_graph "${PROJECT_SOURCE_DIR}/csrc/gpu/plugin.map"
    COMMENT "${vendor}: plugin" VERBATIM)
  add_custom_target(marketplace_${vendor} ALL DEPENDS "${plugin}")
  install(FILES "${plugin}" DESTINATION "${MARKETPLACE_PLUGIN_DESTINATION}" COMPONENT plugin)
endfunction()

marketplace_cuda_chips_here(here)
marketplace_choose_chips(cuda CUDA "${MARKETPLACE_NVCC}" nvcc /dev/nvidiactl "${here}" "80;90" MARKETPLACE_CUDA_CHIPS)
marketplace_hip_chips_here(here)
set(named gfx90a gfx942 gfx1030 gfx1100 gfx1201)
marketplace_choose_chips(hip HIP "${MARKETPLACE_HIPCC}" hipcc /dev/kfd "${here}" "${named}" MARKETPLACE_HIP_CHIPS)
