"""Calls a user's Python function: the sandbox side of the wire protocol (src/runtime/wire.rs).

Run as `python3 -I -B -X utf8 shim.py` with the daemon's socket as descriptor 3: in a sandbox, or as a zygote of which
sandboxes' runtimes are copies. Works with Python 3.8 and later.

Everything needed is imported before the user's folder joins `sys.path`, so a user's own `json.py` shadows nothing here; and
the imports are few, because every millisecond of them is part of a cold start.
"""

import faulthandler
import json
import os
import sys
import time

VERSION = 1
SPECIALISE, INVOKE, READY, SPECIALISED, RESULT = 1, 2, 16, 17, 18
HEADER_BYTES = 8
HEADS = {kind: bytes((VERSION, kind)) for kind in (READY, SPECIALISED, RESULT)}
META_BYTES_MAX = 65535
READ_BYTES = 65536
# The socket moves here, out of the way of user code that closes or reuses low descriptors.
SOCKET_FD = 200
MESSAGE_CHARS_MAX = 8192
FRAME_CHARS_MAX = 400
FRAMES_MAX = 50
SOURCE_FILES_MAX = 64

FILES = ("main", "index", "lambda_function", "handler")
FUNCTIONS = ("handler", "main", "lambda_handler")

CODE_VARARGS = 0x04
CODE_COROUTINE = 0x80

encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
# Of JSON without white space around it, as the daemon sends it: `decode` would look for some with regular expressions.
scan = json.JSONDecoder().scan_once
now_ns = time.perf_counter_ns
bootstrap = sys.modules["_frozen_importlib"]


class Unloadable(Exception):
    """The user's code can't be called, for a reason of ours to tell: no file, no function."""


class Channel:
    """Frames over a stream socket: one read where the kernel has it all, one write each."""

    def __init__(self, fd):
        self.fd = fd
        self.pid = os.getpid()
        self.buffer = b""

    def receive(self):
        """(kind, meta, body), or ends the process when the daemon is gone."""
        held = self.buffer or os.read(self.fd, READ_BYTES)
        if len(held) > HEADER_BYTES and held[0] == VERSION:
            meta_end = HEADER_BYTES + int.from_bytes(held[2:4], "little")
            if len(held) == meta_end + int.from_bytes(held[4:8], "little"):
                self.buffer = b""
                return held[1], scan(str(held[HEADER_BYTES:meta_end], "utf-8"), 0)[0], held[meta_end:]
        if not held:
            os._exit(0)
        self.buffer = held
        head = self._take(HEADER_BYTES)
        if head[0] != VERSION:
            os._exit(70)
        meta_bytes = int.from_bytes(head[2:4], "little")
        body_bytes = int.from_bytes(head[4:8], "little")
        meta = scan(str(self._take(meta_bytes), "utf-8"), 0)[0]
        return head[1], meta, self._take(body_bytes)

    def _take(self, count):
        held = self.buffer
        while len(held) < count:
            missing = count - len(held)
            if missing > READ_BYTES:
                held += self._read_exactly(missing)
                break
            got = os.read(self.fd, READ_BYTES)
            if not got:
                os._exit(0)
            held = held + got if held else got
        self.buffer = held[count:]
        return held[:count]

    def _read_exactly(self, count):
        whole = bytearray(count)
        rest = memoryview(whole)
        while rest:
            got = os.readv(self.fd, [rest])
            if not got:
                os._exit(0)
            rest = rest[got:]
        return bytes(whole)

    def send(self, kind, meta, body=b""):
        if os.getpid() != self.pid:
            os._exit(0)  # a child that user code forked has come back from the handler: it may not answer
        lengths = (len(meta) | len(body) << 16).to_bytes(6, "little")
        frame = b"".join((HEADS[kind], lengths, meta, body))
        written = os.write(self.fd, frame)
        if written < len(frame):
            rest = memoryview(frame)[written:]
            while rest:
                rest = rest[os.write(self.fd, rest) :]


class Identity:
    cognito_identity_id = None
    cognito_identity_pool_id = None


class Context:
    """What a handler gets as its second argument: AWS Lambda's names, and ours."""

    identity = Identity()
    client_context = None

    def __init__(self, function, invoke):
        self.__dict__.update(function)
        self.aws_request_id = self.request_id = invoke["id"]
        self.model_id = invoke.get("modelId")
        self.llm_tokens = None
        self._deadline_ms = invoke["deadlineMs"]

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def add_llm_tokens(self, count):
        """Counts tokens of a language model towards this call's record."""
        count = int(count)
        if count < 0:
            raise ValueError("a count of tokens is not negative")
        self.llm_tokens = (self.llm_tokens or 0) + count

    def log(self, message):
        sys.stdout.write(str(message) + "\n")

    def __repr__(self):
        return "Context(aws_request_id=%r, function_name=%r)" % (self.aws_request_id, self.function_name)


def function_facts(specialise):
    """The attributes of a context that are the same in every call."""
    name = specialise["functionName"]
    region = os.environ.get("AWS_REGION", "us-east-1")
    return {
        "function_name": name,
        "function_id": specialise["functionId"],
        "function_version": str(specialise["functionVersion"]),
        "invoked_function_arn": "arn:aws:lambda:%s:000000000000:function:%s" % (region, name),
        "memory_limit_in_mb": str(specialise["memoryMb"]),
        "memory_mb": specialise["memoryMb"],
        "log_group_name": os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/" + name),
        "log_stream_name": os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
    }


# --- loading


def split_handler(handler, root):
    """(module, function) that a handler string names; either may be None: the convention then says which."""
    if not handler:
        return None, None
    path = handler.replace("/", ".").strip(".")
    if "." in path:
        module, function = path.rsplit(".", 1)
        return module, function
    if module_exists(root, path):
        return path, None
    return None, path


def module_exists(root, module):
    path = os.path.join(root, *module.split("."))
    return os.path.isfile(path + ".py") or os.path.isdir(path)


def import_user_module(root, module):
    """Imports the user's `module`, even where a module of that name was loaded before the user's code came."""
    path = os.path.join(root, *module.split(".")) + ".py"
    if module in sys.modules or module in sys.builtin_module_names:
        if not os.path.isfile(path):
            raise Unloadable("the package has no file %s.py" % module.replace(".", "/"))
        return import_by_path(module, path)
    if "." not in module and os.path.isfile(path) and not has_other_forms(root, module):
        return import_source(module, path)
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise Unloadable("the package has no file %s.py" % module.replace(".", "/")) from None
        raise
    return sys.modules[module]


def has_other_forms(root, module):
    """Whether what Python's own search would find first may be something else than `module`.py: a package, or compiled files."""
    return os.path.isdir(os.path.join(root, module)) or os.path.isdir(os.path.join(root, "__pycache__"))


def import_source(name, path):
    """What `import` does once it has found the file, without the search: of a small module that is the most part."""
    return bootstrap._load(spec_of(name, path))


def spec_of(name, path):
    spec = bootstrap.ModuleSpec(name, SourceLoader(name, path), origin=path)
    spec.has_location = True
    return spec


class SourceLoader(type(json.__loader__)):
    def get_code(self, name):
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            source = os.read(file, READ_BYTES)
            while rest := os.read(file, READ_BYTES):
                source += rest
        finally:
            os.close(file)
        return compile(source, self.path, "exec", dont_inherit=True)


def import_by_path(name, path):
    module = type(sys)(name)
    module.__file__ = path
    module.__loader__ = type(json.__loader__)(name, path)
    module.__loader__.exec_module(module)
    return module


def load(specialise):
    """Becomes the function: environment, folder, code. Returns what to call, and how many arguments it takes."""
    root = specialise["taskRoot"]
    zone = os.environ.get("TZ")
    os.environ.update(specialise["env"])
    if os.environ.get("TZ") != zone:
        time.tzset()
    os.chdir(root)
    vendored = os.path.join(root, "python")
    sys.path[:0] = [root, vendored] if os.path.isdir(vendored) else [root]
    module_name, function_name = split_handler(specialise.get("handler"), root)
    if module_name is None:
        module_name = next((name for name in FILES if module_exists(root, name)), None)
        if module_name is None:
            raise Unloadable("the package has none of main.py, index.py, lambda_function.py; name the file with handler")
    module = import_user_module(root, module_name)
    return find_function(module, module_name, function_name)


def find_function(module, module_name, function_name):
    wanted = (function_name,) if function_name else FUNCTIONS
    for name in wanted:
        function = getattr(module, name, None)
        if callable(function):
            return function
    file = module_name.replace(".", "/") + ".py"
    if function_name and hasattr(module, function_name):
        raise Unloadable("%s in %s is not a function" % (function_name, file))
    raise Unloadable("%s defines no function %s" % (file, " or ".join(wanted)))


def argument_count(function):
    """How many of (event, context) `function` takes: 0, 1 or 2."""
    bound = 0
    while True:
        if hasattr(function, "__func__"):  # a bound method
            function, bound = function.__func__, 1
        code = getattr(function, "__code__", None)
        if code is None:
            call = getattr(type(function), "__call__", None)
            if getattr(call, "__code__", None) is None:
                return 2
            function, bound = call, 1
        elif code.co_flags & CODE_VARARGS:
            if not hasattr(function, "__wrapped__"):
                return 2
            function = function.__wrapped__  # a decorator that passes on whatever it gets
        else:
            return min(2, code.co_argcount - bound)


def is_coroutine_function(function):
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & CODE_COROUTINE)


class Loop:
    """One event loop for the life of the sandbox, so that clients opened in one call serve the next."""

    def __init__(self):
        self.loop = None

    def prepare(self):
        if self.loop is None:
            asyncio = import_without_user_path("asyncio")
            self.asyncio = asyncio
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)

    def run(self, awaitable):
        self.prepare()
        try:
            return self.loop.run_until_complete(self._await(awaitable))
        finally:
            self._cancel_leftovers()

    @staticmethod
    async def _await(awaitable):
        return await awaitable

    def _cancel_leftovers(self):
        """Tasks of this call must not run in the next one's time."""
        left = self.asyncio.all_tasks(self.loop)
        if left:
            for task in left:
                task.cancel()
            self.loop.run_until_complete(self.asyncio.gather(*left, return_exceptions=True))


def import_without_user_path(name):
    users = sys.path[:]
    sys.path[:] = STANDARD_PATH
    try:
        return __import__(name)
    finally:
        sys.path[:] = users


STANDARD_PATH = sys.path[:]


# --- errors


class Errors:
    """Turns exceptions into what the daemon records: class, message, the frames in the user's own files."""

    def __init__(self, root):
        self.root = os.path.join(root, "")
        self.sources = {}

    def describe(self, error):
        kind, message = type(error).__name__, self._message(error)
        if isinstance(error, Unloadable):
            kind = "HandlerNotFound"
        elif isinstance(error, SystemExit):
            message = "exited with code %d" % exit_code(error)
        elif isinstance(error, ModuleNotFoundError) and error.name:
            message += "; put it into the package (pip install -t . %s)" % error.name.split(".")[0]
        trace = self._frames(error.__traceback__)
        if isinstance(error, SyntaxError) and error.filename:
            trace.append(self._frame(error.filename, error.lineno or 0, None, error.text))
        return {"errorType": kind[:256], "errorMessage": message[:MESSAGE_CHARS_MAX], "stackTrace": trace}

    @staticmethod
    def _message(error):
        try:
            return str(error)
        except BaseException:
            return "(its message can't be had: __str__ raised)"

    def _frames(self, traceback):
        found = []
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if code.co_filename.startswith(self.root):
                found.append((code.co_filename, traceback.tb_lineno, code.co_name))
            traceback = traceback.tb_next
        if len(found) <= FRAMES_MAX:
            return [self._frame(*frame) for frame in found]
        half = FRAMES_MAX // 2
        cut = "  ... %d more frames" % (len(found) - 2 * half)
        return [self._frame(*f) for f in found[:half]] + [cut] + [self._frame(*f) for f in found[-half:]]

    def _frame(self, path, line, function, text=None):
        if text is None:
            lines = self._lines(path)
            text = lines[line - 1] if 0 < line <= len(lines) else ""
        where = '  File "%s", line %d' % (path, line) + (", in " + function if function else "")
        text = text.strip()
        return (where + "\n    " + text if text else where)[:FRAME_CHARS_MAX]

    def _lines(self, path):
        if path not in self.sources:
            if len(self.sources) >= SOURCE_FILES_MAX:
                self.sources.clear()
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    self.sources[path] = file.read().splitlines()
            except OSError:
                self.sources[path] = []
        return self.sources[path]


def exit_code(error):
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def encode_meta(meta):
    """JSON that fits a frame: of an error too large for it first the trace goes, then the message's end."""
    if len(meta) == 2 and "handlerUs" in meta:  # what nearly every call says
        return ('{"id":"%(id)s","handlerUs":%(handlerUs)d}' % meta).encode("ascii")
    encoded = to_bytes(meta)
    if len(encoded) > META_BYTES_MAX:
        meta["error"]["stackTrace"] = []
        encoded = to_bytes(meta)
    if len(encoded) > META_BYTES_MAX:
        meta["error"]["errorMessage"] = meta["error"]["errorMessage"][:1024]
        encoded = to_bytes(meta)
    return encoded


def parts_encoder():
    """`encoder`, made once instead of once a call; `None` where this Python's `json` has no such thing."""
    try:
        from json.encoder import c_make_encoder, encode_basestring

        under_way = {}
        make = c_make_encoder(under_way, encoder.default, encode_basestring, None, ":", ",", False, False, False)
        if "".join(make({"a": [1.5, None, "\u00e9"]}, 0)) == '{"a":[1.5,null,"\u00e9"]}':
            return make, under_way
    except Exception:
        pass
    return None, None


encode_parts, encoding = parts_encoder()


def encode(value):
    if encode_parts is None:
        return encoder.encode(value)
    try:
        return "".join(encode_parts(value, 0))
    except BaseException:
        encoding.clear()  # else what was being encoded would count as containing itself
        raise


def to_bytes(value):
    """UTF-8 JSON. Raises TypeError, ValueError or RecursionError for what JSON has no form of."""
    try:
        return encode(value).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can only escape
        return encode_ascii(value).encode("ascii")


# --- calls


class Function:
    """A loaded function."""

    def __init__(self, specialise, errors, loop):
        self.errors = errors
        self.loop = loop
        self.call = load(specialise)
        self.facts = function_facts(specialise)
        self.arguments = argument_count(self.call)
        if is_coroutine_function(self.call):
            loop.prepare()

    def invoke(self, invoke, body):
        """(meta, body) of the answer."""
        context = Context(self.facts, invoke)
        os.environ["JOB_ID"] = invoke["id"]
        meta = {"id": invoke["id"]}
        value = b""
        started = now_ns()
        try:
            event = scan(str(body, "utf-8"), 0)[0] if body else {}
            started = now_ns()
            result = self._run(event, context)
            meta["handlerUs"] = (now_ns() - started) // 1000
            value = self._marshal(result, meta)
        except BaseException as error:
            meta["handlerUs"] = (now_ns() - started) // 1000
            meta["error"] = self.errors.describe(error)
            if isinstance(error, SystemExit):
                meta["exitCode"] = exit_code(error)
                if isinstance(error.code, str):
                    print(error.code, file=sys.stderr)
        if context.llm_tokens is not None:
            meta["llmTokens"] = context.llm_tokens
        return meta, value

    def _run(self, event, context):
        if self.arguments == 2:
            result = self.call(event, context)
        elif self.arguments == 1:
            result = self.call(event)
        else:
            result = self.call()
        return self.loop.run(result) if hasattr(result, "__await__") else result

    @staticmethod
    def _marshal(result, meta):
        try:
            return to_bytes(result)
        except (TypeError, ValueError, RecursionError) as error:
            meta["error"] = {
                "errorType": "Runtime.MarshalError",
                "errorMessage": ("the handler's value has no form in JSON: %s" % error)[:MESSAGE_CHARS_MAX],
                "stackTrace": [],
            }
            return b""


def open_streams():
    """Lines reach the daemon as they are printed, whatever the locale says."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    faulthandler.enable(file=sys.stderr, all_threads=False)  # a crash says where it was


def flush_streams():
    flush(sys.__stdout__)
    flush(sys.__stderr__)
    if sys.stdout is not sys.__stdout__:
        flush(sys.stdout)
    if sys.stderr is not sys.__stderr__:
        flush(sys.stderr)


def flush(stream):
    try:
        stream.flush()
    except Exception:
        pass  # closed or replaced by user code


def move_socket(fd):
    """Children must not have the socket, and user code must not close it by accident."""
    os.dup2(fd, SOCKET_FD, inheritable=False)
    os.close(fd)
    return SOCKET_FD


def serve(fd):
    """Speaks the protocol over `fd` until the daemon hangs up. Never returns."""
    channel = Channel(move_socket(fd))
    open_streams()
    sys.argv = [""]
    channel.send(READY, b"{}")
    _, specialise, _ = channel.receive()
    errors = Errors(specialise["taskRoot"])
    meta = {"error": None}
    function = None
    try:
        function = Function(specialise, errors, Loop())
    except BaseException as error:
        meta["error"] = errors.describe(error)
    flush_streams()
    channel.send(SPECIALISED, encode_meta(meta))
    while True:
        kind, invoke, body = channel.receive()
        if kind != INVOKE or function is None:
            os._exit(70)
        meta, value = function.invoke(invoke, body)
        flush_streams()
        channel.send(RESULT, encode_meta(meta), value)


def rehearse(folder):
    """Does once, with a function of ours in `folder`, what the first function and its first call will need done, and takes it back.

    What runs for the first time reads its pages from the executable and fills the interpreter's caches: that is most of what loading a
    small function takes. Call it before `serve`.
    """
    environment, path, modules = dict(os.environ), sys.path[:], set(sys.modules)
    specialise = {
        "taskRoot": folder,
        "handler": "rehearsal.handler",
        "env": {"TZ": os.environ.get("TZ", ":UTC")},
        "functionName": "",
        "functionId": "",
        "functionVersion": 0,
        "memoryMb": 0,
    }
    try:
        errors = Errors(folder)
        function = Function(scan(encode(specialise), 0)[0], errors, Loop())
        meta, _ = function.invoke({"id": "", "deadlineMs": 0}, b'{"a":[1,"b",null]}')
        encode_meta(meta)
    except Exception:
        pass  # a rehearsal: what is really wrong shows again when it counts
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    sys.path_importer_cache.pop(folder, None)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def wait_to_be_forked():
    """In a zygote: gets everything ready and becomes the origin of others. Returns in each of them, behind its walls."""
    import gc

    if len(sys._current_frames()) != 1:
        sys.exit("something that Python loads by itself has started a thread; forking would not be safe")
    open_streams()
    gc.collect()
    gc.freeze()  # what is here now is in no garbage, and looking for it would make each fork copy its pages
    # The library that was preloaded has this return 0 for each sandbox (src/sandbox/sys/zygote.rs), and never here.
    if os.fork() != 0:
        os._exit(71)


if __name__ == "__main__":
    rehearse(os.path.dirname(os.path.abspath(__file__)))
    if os.environ.pop("FAASD_FORK", None) is not None:
        wait_to_be_forked()
    elif "LD_PRELOAD" in os.environ:
        sys.exit("the library was not preloaded")
    serve(3)
