// The packages of libtorch come without Gloo's headers. ProcessGroupGloo.hpp of c10d holds Gloo's objects behind
// pointers and, for what the trainer calls, needs to know no more than that they exist: these are the names. Where the
// real headers are there, they are found first.
#pragma once
