// The border between the shim and Rust.
//
// A tensor is a pointer to an at::Tensor that the caller owns; a tensor returned is a new one that the caller frees
// through tch. Every function returns NULL, or a message allocated with malloc when libtorch threw: no C++ exception
// crosses.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

using TensorPtr = at::Tensor *;

/// Runs `body` and turns what it throws into the message that the border returns.
template <typename Body> inline char *guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("libtorch threw something that is no exception");
  }
}
