# GPU backends as plugins: the same device sources compiled as CUDA (libmarketplace_cuda.so) or as HIP
# (libmarketplace_hip.so) and opened at run time, so that one build works with any or no GPU.
set(MARKETPLACE_CUDA AUTO CACHE STRING "Build the CUDA plugin: AUTO (nvcc and a driver are here), ON, OFF")
set(MARKETPLACE_HIP AUTO CACHE STRING "Build the HIP plugin: AUTO (hipcc and a driver are here), ON, OFF")
set(MARKETPLACE_CUDA_ARCHITECTURES 80 90 CACHE STRING "Compute capabilities; PTX of the last one too")
set(MARKETPLACE_HIP_ARCHITECTURES gfx90a gfx942 gfx1030 gfx1100 gfx1201 CACHE STRING "AMD chips")
set(MARKETPLACE_CUDA_FLAGS "" CACHE STRING "More flags for nvcc")
set(MARKETPLACE_CUDA_RUNTIME static CACHE STRING "CUDA's runtime: static (in the plugin) or shared")
set(MARKETPLACE_HIP_FLAGS "" CACHE STRING "More flags for the HIP compiler")
set(MARKETPLACE_PLUGIN_DESTINATION marketplace CACHE STRING "Folder that plugins are installed to")
find_program(MARKETPLACE_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATH_SUFFIXES bin
             PATHS /usr/local/cuda)
find_program(MARKETPLACE_HIPCC hipcc HINTS ENV ROCM_PATH ENV HIP_PATH PATH_SUFFIXES bin
             PATHS /opt/rocm)

# AUTO does not spend minutes on a plugin that this machine cannot use: it wants the driver's device
# file beside the compiler.
function(marketplace_wants_plugin name option compiler device_file result)
  set(${result} OFF PARENT_SCOPE)
  if(option STREQUAL "OFF")
    message(STATUS "${name} plugin: off")
  elseif(option STREQUAL "ON")
    if(NOT compiler)
      message(FATAL_ERROR "${name} plugin: asked for, but its compiler was not found "
                          "(looked for ${ARGN}; see MARKETPLACE_NVCC, MARKETPLACE_HIPCC)")
    endif()
    message(STATUS "${name} plugin: on, by ${compiler}")
    set(${result} ON PARENT_SCOPE)
  elseif(NOT option STREQUAL "AUTO")
    message(FATAL_ERROR "${name} plugin: expected AUTO, ON or OFF, received ${option}")
  elseif(NOT compiler)
    message(STATUS "${name} plugin: not built, ${ARGN} was not found")
  elseif(NOT EXISTS "${device_file}")
    message(STATUS "${name} plugin: not built, ${compiler} is here but no driver (${device_file}); "
                   "ON builds it all the same")
  else()
    message(STATUS "${name} plugin: built, ${compiler} and ${device_file} are here")
    set(${result} ON PARENT_SCOPE)
  endif()
endfunction()

# How each vendor's compiler is called: <vendor>_compile for kernels, <vendor>_host for the sources without,
# which need no pass per chip, <vendor>_link.
function(marketplace_gpu_commands)
  set(cuda "${MARKETPLACE_NVCC}" -std=c++20 -O3 -I "${PROJECT_SOURCE_DIR}/csrc"
      -Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra ${MARKETPLACE_CUDA_FLAGS})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
    list(APPEND cuda -Xcompiler -Wno-restrict)  # false alarms, see warnings.cmake
  endif()
  set(hip "${CMAKE_COMMAND}" -E env HIP_PLATFORM=amd "${MARKETPLACE_HIPCC}"
      ${MARKETPLACE_HIP_FLAGS})
  set(hip_compile ${hip} -x hip -D__HIP_PLATFORM_AMD__ -std=c++20 -O3 -ffp-contract=off
      -I "${PROJECT_SOURCE_DIR}/csrc" -fPIC -fvisibility=hidden -Wall -Wextra)
  if(MARKETPLACE_WARNINGS_AS_ERRORS)
    list(APPEND cuda -Werror all-warnings)
    list(APPEND hip_compile -Werror)
  endif()
  set(cuda_host ${cuda} -x c++ PARENT_SCOPE)
  # "contract": two roundings stay two, as on the CPU (cmake/defaults.cmake)
  list(APPEND cuda -fmad=false)
  set(targets)
  foreach(architecture IN LISTS MARKETPLACE_CUDA_ARCHITECTURES)
    list(APPEND targets -gencode "arch=compute_${architecture},code=sm_${architecture}")
  endforeach()
  list(GET MARKETPLACE_CUDA_ARCHITECTURES -1 newest)
  list(APPEND targets -gencode "arch=compute_${newest},code=compute_${newest}")
  set(cuda_compile ${cuda} ${targets} PARENT_SCOPE)
  set(cuda_link ${cuda} -cudart ${MARKETPLACE_CUDA_RUNTIME} ${targets} PARENT_SCOPE)
  set(targets)
  foreach(architecture IN LISTS MARKETPLACE_HIP_ARCHITECTURES)
    list(APPEND targets "--offload-arch=${architecture}")
  endforeach()
  set(hip_compile ${hip_compile} ${targets} PARENT_SCOPE)
  # clang names a variable after the id of a file, which it gives only what has a part for devices
  set(hip_host ${hip_compile} ${targets} --cuda-host-only -Xclang "-cuid=<source>" PARENT_SCOPE)
  set(hip_link ${hip} --hip-link ${targets} PARENT_SCOPE)
endfunction()

# libmarketplace_<vendor>.so from the device sources (paths relative to csrc/gpu).
function(marketplace_gpu_plugin vendor)
  marketplace_gpu_commands()
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

marketplace_wants_plugin(CUDA "${MARKETPLACE_CUDA}" "${MARKETPLACE_NVCC}" /dev/nvidiactl
                         MARKETPLACE_BUILD_CUDA nvcc)
marketplace_wants_plugin(HIP "${MARKETPLACE_HIP}" "${MARKETPLACE_HIPCC}" /dev/kfd
                         MARKETPLACE_BUILD_HIP hipcc)
