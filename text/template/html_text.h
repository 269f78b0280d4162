// HTML as the text that its reader sees.
#pragma once

#include "text/template/marked_string.h"

namespace perdure::text::jinja {

// Without tags and comments, with runs of white space as single spaces and with the characters that
// "&amp;" and its like stand for, as MarkupSafe's striptags. What input took part in is input.
MarkedString StripTags(const MarkedString& text);

}  // namespace perdure::text::jinja
