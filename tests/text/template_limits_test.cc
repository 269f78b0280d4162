// Hostile templates end in an error, never in a crash, an endless loop or unbounded memory; errors
// name template, line and expression.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "base/limits.h"
#include "text/template/chat_template.h"

namespace perdure::text {
namespace {

Result<RenderedPrompt> RenderSource(const std::string& source,
                                    const Json& context = Json::object()) {
  ASSIGN_OR_RETURN(const auto chat, ChatTemplate::Parse(source, "model/chat_template.jinja"));
  return chat->Render(context, {}, 0);
}

std::string ErrorOf(const std::string& source, const Json& context = Json::object()) {
  const auto result = RenderSource(source, context);
  return result ? "rendered: " + result->text.substr(0, 100) : result.error().message;
}

std::string Repeat(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

void ExpectError(const std::string& source, const std::string& part,
                 const Json& context = Json::object()) {
  SCOPED_TRACE(source.substr(0, 200));
  const auto result = RenderSource(source, context);
  ASSERT_FALSE(result) << "rendered " << result->text.size() << " bytes";
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(TemplateLimits, Nesting) {
  for (const char* open :
       {"(", "[", "{1: ", "-", "not ", "+", "a[", "f(", "x if ", "1 + (", "a.b("}) {
    SCOPED_TRACE(open);
    EXPECT_FALSE(RenderSource("{{ " + Repeat(open, 10'000) + "1"));
  }
  ExpectError("{{ " + Repeat("(", 10'000) + "1" + Repeat(")", 10'000) + " }}", "nested deeper");
  ExpectError("{{ " + Repeat("[", 10'000) + Repeat("]", 10'000) + " }}", "nested deeper");
  ExpectError(Repeat("{% if 1 %}", 10'000) + Repeat("{% endif %}", 10'000), "nested deeper");
  ExpectError(Repeat("{% for x in [1] %}", 10'000) + Repeat("{% endfor %}", 10'000),
              "nested deeper");
  ExpectError("{{ x" + Repeat(".a", 10'000) + " }}", "nested deeper");
  ExpectError("{{ 'x'" + Repeat("|upper", 10'000) + " }}", "nested deeper");
  ExpectError("{% set " + Repeat("(", 10'000) + "x" + Repeat(")", 10'000) + " = 1 %}",
              "nested deeper");
  ExpectError("{{ 1" + Repeat(" if 1 else 2", 10'000) + " }}", "nested deeper");
}

TEST(TemplateLimits, LongFlatExpressionsAreFine) {
  EXPECT_EQ(RenderSource("{{ 1" + Repeat(" + 1", 10'000) + " }}")->text, "10001");
  EXPECT_EQ(RenderSource("{{ 0" + Repeat(" or 0", 10'000) + " }}")->text, "0");
  EXPECT_EQ(RenderSource("{{ 'a'" + Repeat(" ~ 'a'", 999) + " }}")->text.size(), 1000u);
  EXPECT_EQ(RenderSource("{% if 0 %}" + Repeat("{% elif 0 %}", 10'000) + "{% endif %}")->text, "");
}

TEST(TemplateLimits, DeepestAllowedNestingRuns) {
  const std::string deep = "{{ " + Repeat("[", 60) + "1" + Repeat("]", 60) + "|length }}";
  EXPECT_EQ(RenderSource(deep)->text, "1");
}

TEST(TemplateLimits, Recursion) {
  ExpectError("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper");
  ExpectError(
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "nested deeper");
  ExpectError("{% macro m(x=m()) %}{% endmacro %}{{ m() }}", "nested deeper");
  ExpectError("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested deeper");
  ExpectError(
      "{% macro m() %}{{ caller() }}{% endmacro %}"
      "{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
      "nested deeper");
  EXPECT_EQ(RenderSource("{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}"
                         "{{ m(50) }}")
                ->text.size(),
            92u);
}

TEST(TemplateLimits, Steps) {
  ExpectError(
      "{% set r = range(1000)|list %}{% for a in range(100000) %}{% for b in r %}{% endfor %}{% "
      "endfor %}",
      "steps");
  ExpectError(
      "{% set ns = namespace(s='x' * 1000000) %}{% for a in range(100000) %}"
      "{{ '' if 'y' in ns.s }}{% endfor %}",
      "steps");
  // Two lists whose comparison doubles with each level.
  ExpectError(
      "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(100) %}{% set ns.a = [ns.a, "
      "ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
      "steps");
  // Work on long strings is counted by their length.
  const std::string rounds = "{% for a in range(100000) %}{% for b in range(1000) %}";
  const std::string end = "{% endfor %}{% endfor %}";
  const std::string longs = "{% set x = 'a' * 9000000 %}{% set y = x ~ 'b' %}{% set z = x ~ 'c' %}";
  for (const char* work : {"{% if y == z %}{% endif %}", "{% if y < z %}{% endif %}",
                           "{% if y in {z: 1} %}{% endif %}", "{{ {'k': 1}[y] }}",
                           "{{ {'k': 1}.get(y) }}", "{% set q = 'k'|default(y) %}",
                           "{% if y is lower %}{% endif %}", "{% if x[:1] in y %}{% endif %}",
                           "{% set q = 'k'.startswith(y) %}", "{% set q = 'k'|replace(y, '') %}"}) {
    SCOPED_TRACE(work);
    ExpectError(longs + rounds + work + end, "more than");
  }
  ExpectError("{{ ('a' * 9000000 ~ 'b' ~ 'a' * 500000).rsplit('b' ~ 'a' * 500000 ~ '', 5) }}",
              "steps");
  ExpectError("{{ range(1000000000) }}", "range()");
  ExpectError("{% for x in range(1000000000) %}{% endfor %}", "range()");
}

TEST(TemplateLimits, Bytes) {
  ExpectError("{{ 'a' * 1000000000000 }}", "bytes");
  ExpectError("{{ [1] * 1000000000000 }}", "bytes");
  ExpectError("{{ 'a' * 9223372036854775807 }}", "bytes");
  ExpectError("{{ ('a' * 60000000) ~ ('b' * 60000000) }}", "bytes");
  ExpectError("{{ ('a' * 1000000).replace('a', 'b' * 1000) }}", "bytes");
  ExpectError("{{ ('a' * 1000000).replace('', 'b' * 1000) }}", "bytes");
  ExpectError("{{ ('b' * 1000).join('a' * 1000000) }}", "bytes");
  ExpectError("{{ range(100000)|join('b' * 10000) }}", "bytes");
  ExpectError("{{ ('\\n' * 100000)|indent(100000, blank=true) }}", "bytes");
  ExpectError("{{ ''|indent(10000000000, true) }}", "bytes");
  ExpectError("{{ ('a ' * 100000)|wordwrap(1, wrapstring='b' * 10000) }}", "bytes");
  ExpectError("{{ {'k' * 1000000: ['a'] * 1000}|pprint }}", "bytes");
  ExpectError("{{ 'a'.center(1000000000) }}", "width");
  ExpectError("{{ 'a'.zfill(1000000000) }}", "width");
  ExpectError("{{ '%1000000000d' % 5 }}", "width");
  ExpectError("{{ '%.1000000000f' % 5 }}", "width");
  ExpectError("{{ '%*d' % (1000000000, 5) }}", "width");
  ExpectError("{{ '{:1000000000}'.format('a') }}", "width");
  ExpectError("{{ '\\t'.expandtabs(100000000000) }}", "bytes");
  ExpectError("{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}", "bytes");
  ExpectError(
      "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "bytes");
  ExpectError(
      "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "bytes");
  ExpectError(
      "{% set ns = namespace(s=['a']) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] "
      "%}{% endfor %}{{ ns.s|tojson }}",
      "");
  ExpectError(
      "{% set ns = namespace(s=['a']) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] "
      "%}{% endfor %}{{ ns.s }}",
      "");
  ExpectError("{{ [1]|tojson(indent=100000) }}", "indent");
  ExpectError("{{ strftime_now('%1000000000d') }}", "width");
  ExpectError("{{ [1]|batch(1000000000, 'x')|list }}", "batch");
  ExpectError("{{ 'a'|slice(1000000000)|list }}", "slice");
  ExpectError("{{ ('<' * 20000000)|e }}", "bytes");
  ExpectError("{{ (' ' * 20000000)|urlencode }}", "bytes");
  ExpectError("{{ {'a': '<' * 15000000}|xmlattr }}", "bytes");
  ExpectError("{{ {'a': ' ' * 20000000}|urlencode }}", "bytes");
  ExpectError("{{ ('%s' * 1000)|safe|format(*(['<' * 20000] * 1000)) }}", "bytes");
  // Small objects in great numbers.
  ExpectError("{{ ('a,' * 1000000).split(',')|length }}", "bytes");
  ExpectError("{{ ('a ' * 1000000).split()|length }}", "bytes");
  ExpectError("{{ ('\\n' * 1000000).splitlines()|length }}", "bytes");
  ExpectError("{{ ('a' * 1000000)|list|length }}", "bytes");
  ExpectError("{{ [1]|sort(attribute=',' * 1000000) }}", "bytes");
  ExpectError("{{ (['a' * 1000000] * 100)|sort|length }}", "bytes");
  ExpectError(
      "{% for i in range(100000) %}{% for j in range(10) %}{% set x = namespace() %}{% "
      "endfor %}{% endfor %}",
      "bytes");
  ExpectError(
      "{% for i in range(100000) %}{% for j in range(10) %}{% macro m() %}{% endmacro %}{% "
      "endfor %}{% endfor %}",
      "bytes");
  // Marks of input are counted, too: 16 bytes for each range.
  ExpectError("{{ ('a' + kwarg) * 8000000 }}", "bytes", {{"kwarg", "K"}});
  EXPECT_FALSE(ChatTemplate::Parse(std::string(limits::kTemplateBytesMax + 1, 'a'), "t"));
}

TEST(TemplateLimits, DeepValues) {
  ExpectError(
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}"
      "{% endfor %}",
      "nested deeper");
  ExpectError(
      "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = {1: ns.x} %}"
      "{% endfor %}",
      "nested deeper");
  ExpectError(
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x]|map("
      "'default') %}{% endfor %}",
      "nested deeper");
  ExpectError(
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% for y in [ns.x] %}"
      "{% set ns.x = loop %}{% endfor %}{% endfor %}",
      "nested deeper");
  // Namespaces may hold each other, in long chains and circles, and are freed nevertheless.
  EXPECT_EQ(
      RenderSource("{% set ns = namespace(x=none) %}{% for i in range(100000) %}{% set ns.x = "
                   "namespace(x=ns.x) %}{% endfor %}done")
          ->text,
      "done");
  EXPECT_EQ(RenderSource("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}"
                         "{{ ns.me.me.list[0].me is defined }}{{ ns|string|length < 100 }}")
                ->text,
            "TrueTrue");
  EXPECT_EQ(RenderSource("{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}{% set x = m %}"
                         "{% set _ = loop.changed(loop) %}{{ m() }}{% endfor %}")
                ->text,
            "1");
}

TEST(TemplateLimits, Sandbox) {
  ExpectError("{{ ''.__class__.__mro__ }}", "unsafe");
  ExpectError("{{ messages.append(1) }}{{ [].append(1) }}", "undefined");
  ExpectError("{{ [].append(1) }}", "unsafe");
  ExpectError("{{ {}.update({}) }}", "unsafe");
  ExpectError("{{ '{0.__class__.__name__}'.format('') }}", "unsafe");
  ExpectError("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "'_'");
  ExpectError("{% include 'a' %}", "'include' is not supported");
  ExpectError("{% import 'a' as b %}", "'import' is not supported");
  ExpectError("{% extends 'a' %}", "'extends' is not supported");
  ExpectError("{{ self }}{{ self.x }}", "'self' is undefined");
}

TEST(TemplateLimits, BytesThatAreNotText) {
  EXPECT_FALSE(ChatTemplate::Parse("\xff{{ 1 }}", "t"));
  EXPECT_TRUE(ChatTemplate::Parse("", "t"));
  EXPECT_EQ(RenderSource(std::string("a\0b{{ 'c\0d' }}", 14))->text, std::string("a\0bc\0d", 6));
  const auto cut = RenderSource("{{ s[0] }}|{{ s|length }}|{{ s|upper }}", {{"s", "a\xffz"}});
  ASSERT_TRUE(cut);
  for (size_t size = 0; size < 60; ++size) {
    // Cut anywhere, it is an error or text, never more.
    const std::string source =
        "a{%- for x in [1, 'b'] -%}{{ x|join('c') ~ \"d\\n\" }}{% endfor %}{# e #}";
    (void)RenderSource(source.substr(0, size));
  }
}

TEST(TemplateErrors, NameLineAndExpression) {
  EXPECT_EQ(ErrorOf("a\nb\n{{ x.y.z }}"),
            "model/chat_template.jinja, line 3: 'x' is undefined (in `x.y`)");
  EXPECT_EQ(ErrorOf("{% for m in messages %}\n\n{{ m.content + 1 }}{% endfor %}",
                    {{"messages", {{{"content", "a"}}}}}),
            "model/chat_template.jinja, line 3: unsupported operand types for +: 'str' and 'int' "
            "(in `m.content + 1`)");
  EXPECT_EQ(ErrorOf("\n{{ 'a'|nope }}"),
            "model/chat_template.jinja, line 2: no filter named 'nope' (in `'a'|nope`)");
  EXPECT_EQ(ErrorOf("\n\n{{ 1 is nope }}"),
            "model/chat_template.jinja, line 3: no test named 'nope' (in `1 is nope`)");
  EXPECT_EQ(ErrorOf("\n{% for a, b in [1] %}{% endfor %}"),
            "model/chat_template.jinja, line 2: 'int' object is not iterable");
}

TEST(TemplateErrors, SyntaxErrorsNameTheLine) {
  EXPECT_EQ(ErrorOf("a\n{% if x %}\nb"),
            "model/chat_template.jinja, line 2: 'if' is not closed; expected 'endif'");
  EXPECT_EQ(ErrorOf("a\n\n{{ 'b }}"),
            "model/chat_template.jinja, line 3: the string is not closed");
  EXPECT_EQ(ErrorOf("{{ a\n b }}"), "model/chat_template.jinja, line 2: expected '}}', found 'b'");
  EXPECT_EQ(ErrorOf("\n{% nonsense %}"),
            "model/chat_template.jinja, line 2: unknown tag 'nonsense'");
  EXPECT_EQ(ErrorOf("\n{# a"), "model/chat_template.jinja, line 2: the comment is not closed");
  const auto parsed = ChatTemplate::Parse("{% if %}", "t");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, ErrorCode::bad_model);
}

TEST(TemplateErrors, FiltersThatAreLeftOut) {
  for (const std::string name : {"random", "urlize"}) {
    EXPECT_EQ(ErrorOf("{{ 'a'|" + name + " }}"),
              "model/chat_template.jinja, line 1: the filter '" + name +
                  "' is not supported in chat templates (in `'a'|" + name + "`)");
    ExpectError("{{ ['a']|map('" + name + "')|list }}", "is not supported in chat templates");
  }
}

TEST(TemplateStatements, DoEvaluatesAndPrintsNothing) {
  EXPECT_EQ(RenderSource("a{% do 1 + 1 %}b{% do range(3), 2 %}c")->text, "abc");
  ExpectError("{% do 1 / 0 %}", "division by zero");
  ExpectError("{% do %}", "expected an expression");
}

TEST(TemplateTimes, AreLocalAndHandedIn) {
  const auto at = [](const std::string& source, const TemplateTime& time) {
    return (*ChatTemplate::Parse(source, "t"))->Render(Json::object(), {}, time)->text;
  };
  const std::string source = "{{ strftime_now('%Y-%m-%d %H:%M:%S %a %s%z%Z') }}";
  EXPECT_EQ(at(source, TemplateTime(1'753'900'000)), "2025-07-30 18:26:40 Wed 1753900000");
  EXPECT_EQ(at(source, TemplateTime(1'753'900'000, 7200)), "2025-07-30 20:26:40 Wed 1753900000");
  EXPECT_EQ(at(source, TemplateTime(1'753'900'000, -68'400)), "2025-07-29 23:26:40 Tue 1753900000");
  EXPECT_EQ(at(source, TemplateTime(0, -3600)), "1969-12-31 23:00:00 Wed 0");
}

TEST(TemplateErrors, RaiseExceptionGivesItsOwnText) {
  const auto result = RenderSource("{{ raise_exception('Roles must alternate') }}");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message,
            "the model's chat template refuses this conversation: Roles must alternate");
  EXPECT_EQ(result.error().code, ErrorCode::bad_template);
}

}  // namespace
}  // namespace perdure::text
