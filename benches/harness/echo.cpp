// The native function of the load bench: a Lambda Runtime API client with nothing but sockets, one process for all calls.
// It asks for the next invocation and answers it with its own input, over one kept connection.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <strings.h>

static int connect_to(const std::string& api) {
    const size_t colon = api.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::atoi(api.c_str() + colon + 1)));
    inet_pton(AF_INET, api.substr(0, colon).c_str(), &address.sin_addr);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

struct Answer {
    bool ok = false;
    std::string id, body;
};

// The value of a header, or nothing; names in any case.
static std::string header(const std::string& head, const char* name) {
    for (size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at + 2)) {
        const char* line = head.c_str() + at + 2;
        const size_t length = std::strlen(name);
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const size_t from = head.find_first_not_of(' ', at + 2 + length + 1);
            return head.substr(from, head.find("\r\n", from) - from);
        }
    }
    return {};
}

static Answer exchange(int fd, const std::string& request, std::string& unread) {
    Answer answer;
    for (size_t sent = 0; sent < request.size();) {
        const ssize_t n = write(fd, request.data() + sent, request.size() - sent);
        if (n <= 0) return answer;
        sent += static_cast<size_t>(n);
    }
    char chunk[16384];
    for (;;) {
        const size_t end = unread.find("\r\n\r\n");
        if (end != std::string::npos) {
            const std::string head = unread.substr(0, end + 2);
            const size_t length = std::strtoul(header(head, "content-length").c_str(), nullptr, 10);
            if (unread.size() >= end + 4 + length) {
                answer.id = header(head, "lambda-runtime-aws-request-id");
                answer.body = unread.substr(end + 4, length);
                unread.erase(0, end + 4 + length);
                answer.ok = true;
                return answer;
            }
        }
        const ssize_t n = read(fd, chunk, sizeof chunk);
        if (n <= 0) return answer;
        unread.append(chunk, static_cast<size_t>(n));
    }
}

int main() {
    const char* api = std::getenv("AWS_LAMBDA_RUNTIME_API");
    if (api == nullptr) return 2;
    const std::string base = "/2018-06-01/runtime/invocation/", host = std::string(" HTTP/1.1\r\nHost: ") + api + "\r\n";
    int fd = -1;
    std::string unread;
    for (;;) {
        if (fd < 0) {
            unread.clear();
            if ((fd = connect_to(api)) < 0) return 1;
        }
        const Answer next = exchange(fd, "GET " + base + "next" + host + "\r\n", unread);
        const std::string length = "Content-Length: " + std::to_string(next.body.size()) + "\r\n\r\n";
        if (next.ok && exchange(fd, "POST " + base + next.id + "/response" + host + length + next.body, unread).ok) continue;
        close(fd);
        fd = -1;
    }
}
