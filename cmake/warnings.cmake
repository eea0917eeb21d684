# The warnings that our own code is kept free of.
function(marketplace_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                                           -Woverloaded-virtual)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
    # false alarms on std::string concatenation (GCC bug 105651)
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # libstdc++'s stable_sort calls its own deprecated get_temporary_buffer
    target_compile_options(${target} PRIVATE -Wno-deprecated-declarations)
  endif()
  if(MARKETPLACE_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()
