// What only a program of one's own can try: other system call tables, and the daemon's own executable, which runs a native program from
// inside the sandbox. Prints a verdict as the Python probes return it. Built and run by root on the host, it is the control.

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <iostream>
#include <iterator>
#include <string>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

// What isn't shown isn't there: the control finds it.
static bool is_refusal(long code) { return code == EPERM || code == EACCES || code == ENOSYS || code == ENOENT; }

static void say(bool gained, bool absent, const std::string &detail) {
    std::printf("{\"gained\":%s,\"absent\":%s,\"detail\":\"%s\"}\n", gained ? "true" : "false", absent ? "true" : "false", detail.c_str());
}

// In a child, which may be killed for it: its exit code is the error, 0 if it worked.
static void tried(const std::function<long()> &attempt) {
    std::fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        long returned = attempt();
        _exit(returned >= 0 ? 0 : static_cast<int>(-returned) & 0x7f);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        // Where a kernel has no such table, the instruction is a fault.
        say(false, WTERMSIG(status) == SIGSEGV, "killed by signal " + std::to_string(WTERMSIG(status)));
    } else {
        int code = WEXITSTATUS(status);
        say(!is_refusal(code), code == ENOSYS, "error " + std::to_string(code));
    }
}

static long opened(const std::string &path, int flags) {
    int fd = open(path.c_str(), flags | O_CLOEXEC);
    // Busy is for those who might.
    return fd >= 0 || errno == ETXTBSY ? 0 : -errno;
}

#if defined(__x86_64__)
// Calls of 32 bits have numbers of their own: unshare is 310 there.
static long unshare_by_int80() {
    long returned;
    asm volatile("int $0x80" : "=a"(returned) : "a"(310), "b"(0x04000000) : "memory", "r8", "r9", "r10", "r11");
    return returned;
}

static long unshare_by_x32() {
    long returned = syscall(0x40000000 | SYS_unshare, 0x04000000);
    return returned < 0 ? -errno : returned;
}
#else
static long unshare_by_int80() { return -ENOSYS; }
static long unshare_by_x32() { return -ENOSYS; }
#endif

int main() {
    const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
    const auto is = [&](const char *id) { return input.find(std::string("\"") + id + "\"") != std::string::npos; };
    const std::string parent = "/proc/" + std::to_string(getppid());
    if (is("system-calls-of-32-bits")) tried(unshare_by_int80);
    if (is("system-calls-of-x32")) tried(unshare_by_x32);
    if (is("runner-executable-overwrite")) tried([&] { return opened(parent + "/exe", O_WRONLY); });
    if (is("runner-traced")) tried([&] { return ptrace(PTRACE_SEIZE, getppid(), 0, 0) < 0 ? -errno : 0L; });
    if (is("runner-memory-file")) tried([&] { return opened(parent + "/mem", O_RDONLY); });
    if (is("runner-descriptors")) tried([&] { return opened(parent + "/fd/0", O_RDONLY); });
    if (is("runner-memory-read")) tried([&] {
        char byte;
        iovec here{&byte, 1}, there{&byte, 1};
        // In the control the parent is another program: an address that it doesn't have is an answer too.
        return process_vm_readv(getppid(), &here, 1, &there, 1, 0) < 0 ? -errno : 0L;
    });
}
