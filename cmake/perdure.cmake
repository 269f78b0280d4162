# Settings that every target shares, and the one way a layer is declared.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(THREADS_PREFER_PTHREAD_FLAG ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# -O3 makes nothing faster here but the kernels, which ask for it themselves, and builds take longer.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

option(PERDURE_WERROR "Treat warnings as errors" OFF)
set(PERDURE_SANITIZE "" CACHE STRING "Value of -fsanitize=, empty for none")

# Contraction would let the compiler fuse differently from one kernel to the next; FMA is explicit.
add_compile_options(-Wall -Wextra -ffp-contract=off -fno-math-errno)
if(PERDURE_WERROR)
  add_compile_options(-Werror)
endif()
if(PERDURE_SANITIZE)
  add_compile_options(-fsanitize=${PERDURE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  # Instrumented code makes g++ 12 see uninitialized members in std::variant that are none.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=${PERDURE_SANITIZE})
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

# perdure_layer(NAME [DEPS layer…] [LIBS target…] [PRIVATE_LIBS target…]): static library perdure_NAME
# of all *.cc below the calling folder. Only the layers in DEPS may be included by it.
function(perdure_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS;PRIVATE_LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  if(NOT sources)
    return()
  endif()
  add_library(perdure_${name} STATIC ${sources})
  add_library(perdure::${name} ALIAS perdure_${name})
  target_include_directories(perdure_${name} PUBLIC "${PROJECT_SOURCE_DIR}")
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(perdure_${name} PUBLIC perdure::${dep})
  endforeach()
  target_link_libraries(perdure_${name} PUBLIC ${ARG_LIBS} PRIVATE ${ARG_PRIVATE_LIBS} Threads::Threads)
endfunction()
