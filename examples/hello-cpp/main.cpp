// Greets somebody. Compiled at deploy; started anew for each call in a sandbox that stays warm.

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>

// The text of a JSON object's member, still escaped as it stood there: enough for an example, and safe to print back.
static std::string text_member(const std::string& json, const std::string& name, const std::string& otherwise) {
    auto at = json.find('"' + name + '"');
    if (at == std::string::npos) return otherwise;
    at = json.find_first_not_of(" \t\r\n:", at + name.size() + 2);
    if (at == std::string::npos || json[at] != '"') return otherwise;
    auto end = ++at;
    while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
    return end < json.size() ? json.substr(at, end - at) : otherwise;
}

static std::string environment(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value ? value : otherwise;
}

int main() {
    // The payload comes on stdin, and in PAYLOAD unless it is very large.
    const std::string payload{std::istreambuf_iterator<char>(std::cin), {}};
    const std::string name = text_member(payload, "name", "world");
    std::cerr << "read " << payload.size() << " bytes\n";
    // What stands on the last line, as JSON, is the result; anything before it is log.
    std::cout << R"({"message":")" << environment("GREETING", "Hello") << ", " << name
              << R"(!","runtime":"cpp","requestId":")" << environment("JOB_ID", "") << "\"}\n";
}
