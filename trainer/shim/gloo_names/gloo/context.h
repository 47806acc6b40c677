// See algorithm.h.
#pragma once

#include <chrono>

namespace gloo {

class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout); // named in a function that the trainer does not call
};

} // namespace gloo
