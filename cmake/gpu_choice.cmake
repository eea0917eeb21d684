# Whether a GPU plugin is built, and for which chips: what the compiler that was found can do decides, so that
# one that cannot (too old, or the host's compiler too new) is told when the build is configured.

# The AMD chips that the driver shows: "gfx_target_version 110001" is gfx1101, 90010 is gfx90a.
function(marketplace_chips_here result)
  set(chips)
  file(GLOB nodes /sys/class/kfd/kfd/topology/nodes/*/properties)
  foreach(node IN LISTS nodes)
    file(STRINGS "${node}" version REGEX "^gfx_target_version [1-9]")
    if(version)
      string(REGEX REPLACE "[^0-9]" "" version "${version}")
      math(EXPR major "${version} / 10000")
      math(EXPR minor "${version} / 100 % 100" OUTPUT_FORMAT HEXADECIMAL)
      math(EXPR stepping "${version} % 100" OUTPUT_FORMAT HEXADECIMAL)
      string(REPLACE "0x" "" chip "gfx${major}${minor}${stepping}")
      list(APPEND chips "${chip}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES chips)
  set(${result} ${chips} PARENT_SCOPE)
endfunction()

# Whether the vendor's compiler, called as for kernels, compiles a kernel for the chips in ARGN; what it said.
function(marketplace_compiles vendor result output)
  set(source "${PROJECT_BINARY_DIR}/gpu_choice/probe.cu")
  file(WRITE "${source}" "#if defined(__HIP__)\n#include <hip/hip_runtime.h>\n#endif\n#include <concepts>\n"
                         "template <std::floating_point T> __global__ void probe_kernel(T* x) { x[0] += 1; }\n"
                         "template __global__ void probe_kernel<float>(float*);\n")
  marketplace_gpu_commands(${vendor} ${ARGN})
  execute_process(COMMAND ${${vendor}_compile} -c "${source}" -o "${source}.o"
                  WORKING_DIRECTORY "${PROJECT_BINARY_DIR}/gpu_choice"
                  RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  set(${result} OFF PARENT_SCOPE)
  if(status EQUAL 0)
    set(${result} ON PARENT_SCOPE)
  endif()
  set(${output} "${said}" PARENT_SCOPE)
endfunction()

# Those of the chips in ARGN that the compiler knows; what it said of the last that it does not.
function(marketplace_known_chips vendor result output)
  marketplace_compiles(${vendor} all said ${ARGN})
  set(known ${ARGN})
  if(NOT all)
    foreach(chip IN LISTS ARGN)
      marketplace_compiles(${vendor} knows now ${chip})
      if(NOT knows)
        list(REMOVE_ITEM known ${chip})
        set(said "${now}")
      endif()
    endforeach()
  endif()
  set(${result} ${known} PARENT_SCOPE)
  set(${output} "${said}" PARENT_SCOPE)
endfunction()

# Says why a plugin is not built; that is an error where it was asked for. The core repeats it to who asks for
# such a device: installers show nobody what was said here.
function(marketplace_no_plugin name option reason)
  if(option STREQUAL "ON")
    message(FATAL_ERROR "${name} plugin: asked for, but ${reason}")
  endif()
  message(STATUS "${name} plugin: not built, ${reason}")
  string(REGEX REPLACE "[\";\\]" " " reason "${reason}")
  string(REGEX REPLACE "[\r\n]+" " " reason "${reason}")
  string(SUBSTRING "${reason}" 0 300 reason)
  set_property(GLOBAL PROPERTY MARKETPLACE_NO_${name} "${reason}")
endfunction()

# Sets `result` to the chips to build for, to nothing where no plugin is built. AUTO does not spend minutes on a
# plugin that this machine cannot use: it wants the driver's device file beside the compiler.
# here: the chips of this machine, as far as they are known; named: all that we name.
function(marketplace_choose_chips vendor name compiler program device_file here named result)
  set(option "${MARKETPLACE_${name}}")
  set(asked ${MARKETPLACE_${name}_ARCHITECTURES})
  set(${result} "" PARENT_SCOPE)
  if(option STREQUAL "OFF")
    marketplace_no_plugin(${name} ${option} "it was switched off")
    return()
  elseif(NOT option MATCHES "^(AUTO|ON)$")
    message(FATAL_ERROR "${name} plugin: expected AUTO, ON or OFF, received ${option}")
  elseif(NOT compiler)
    marketplace_no_plugin(${name} ${option}
      "its compiler was not found (looked for ${program}; see MARKETPLACE_NVCC, MARKETPLACE_HIPCC)")
    return()
  elseif(option STREQUAL "AUTO" AND NOT EXISTS "${device_file}")
    marketplace_no_plugin(${name} ${option}
      "${compiler} is here but no driver (${device_file}); ON builds it all the same")
    return()
  endif()
  set(chips ${named})
  if(asked)
    set(chips ${asked})
  elseif(option STREQUAL "AUTO" AND here)
    set(chips ${here})
  endif()
  marketplace_known_chips(${vendor} known said ${chips})
  set(unknown ${chips})
  list(REMOVE_ITEM unknown "" ${known})
  if(NOT known OR (asked AND unknown))
    marketplace_no_plugin(${name} ${option} "${compiler} does not compile for ${unknown}:\n${said}")
    return()
  elseif(unknown)
    message(STATUS "${name} plugin: ${compiler} does not know ${unknown}, left out")
  endif()
  message(STATUS "${name} plugin: built by ${compiler} for ${known}")
  set(${result} ${known} PARENT_SCOPE)
endfunction()
