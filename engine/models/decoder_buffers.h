// Work buffers of Decoder::Step.
#pragma once

#include <vector>

#include "engine/models/decoder.h"

namespace perdure::engine {

struct Decoder::Buffers {
  int rows = 0;  // capacity of the first group
  AlignedBuffer memory;
  float* x = nullptr;         // residual stream [rows][hidden]
  float* normed = nullptr;    // [rows][hidden]
  float* q = nullptr;         // [rows][heads · head_dim, padded]
  float* k = nullptr;         // [rows][kv_heads · head_dim, padded]
  float* v = nullptr;         // the same
  float* attended = nullptr;  // [rows][heads · head_dim]
  float* out = nullptr;       // [rows][hidden, padded]
  float* gate = nullptr;      // [rows][feed_forward, padded]
  float* up = nullptr;        // the same
  float* packed = nullptr;    // Multiply's
  float* cosines = nullptr;   // [rows][head_dim / 2]
  float* sines = nullptr;     // the same
  float* scratch = nullptr;   // [threads][scratch_floats]
  size_t scratch_floats = 0;

  size_t logits_rows = 0;  // capacity
  AlignedBuffer logits;    // [logits_rows][vocab_size, padded]
};

}  // namespace perdure::engine
