//! `python/shim.py`.

use faasd::domain::function::Runtime::Python;
use serde_json::json;

use super::Rig;

fn loaded(source: &str) -> Rig {
    Rig::loaded(Python, &[("main.py", source)])
}

#[test]
fn a_handler_is_called_with_event_and_context() {
    let mut rig = loaded(
        "import os\ncount = 0\ndef handler(event, context):\n    global count\n    count += 1\n    context.add_llm_tokens(5)\n    \
         context.add_llm_tokens(2)\n    return [event, count, context.function_version, context.memory_mb, context.model_id,\n            \
         context.aws_request_id == os.environ['JOB_ID'], 0 < context.get_remaining_time_in_millis() <= 30000, \
         os.environ['GREETING'], os.getcwd().endswith('task')]\n",
    );
    for count in [1, 2] {
        let answer = rig.call(r#"{"naïve": "\ud83d\ude00"}"#);
        assert_eq!(answer.value(), json!([{ "naïve": "😀" }, count, "3", 192, "llama", true, true, "grüß dich", true]));
        assert_eq!(answer.meta.llm_tokens, Some(7));
    }
    assert_eq!(rig.call("").value()[0], json!({}), "no payload is an empty event");
}

#[test]
fn handlers_of_every_shape_are_called() {
    for (source, value) in [
        ("def handler(event): return event", json!(7)),
        ("def handler(): return 'none'", json!("none")),
        ("def main(event, context, more=1): return event", json!(7)),
        ("def lambda_handler(event, context): return event", json!(7)),
        ("handler = lambda *all: len(all)", json!(2)),
        ("class H:\n  def __call__(self, event): return event\nhandler = H()", json!(7)),
        ("class H:\n  def run(self, event): return event\nhandler = H().run", json!(7)),
        (
            "import functools\ndef d(f):\n  @functools.wraps(f)\n  def g(*a, **k): return f(*a, **k)\n  return g\n@d\ndef handler(e): return e",
            json!(7),
        ),
        ("import functools\nhandler = functools.partial(lambda x, e, c: [x, e], 1)", json!([1, 7])),
        ("import asyncio\nasync def handler(event):\n  await asyncio.sleep(0.001)\n  return event", json!(7)),
        ("handler = print", json!(null)),
    ] {
        assert_eq!(loaded(source).call("7").value(), value, "{source}");
    }
}

#[test]
fn handlers_are_found_where_they_are_named() {
    let files = [
        ("pkg/mod.py", "def f(e, c): return __name__"),
        ("json.py", "def f(e, c): return 'mine'"),
        ("main.py", "import json\ndef run(e): return json.dumps(1)"),
        ("python/vendored.py", ""),
        ("v.py", "import vendored\ndef f(e): return 'v'"),
    ];
    for (handler, value) in
        [("pkg/mod.f", "pkg.mod"), ("pkg.mod.f", "pkg.mod"), ("json.f", "mine"), ("run", "1"), ("v.f", "v")]
    {
        let mut rig = Rig::start(Python, &files);
        assert_eq!(rig.specialise(Some(handler)), None);
        assert_eq!(rig.call("{}").value(), value, "{handler}");
    }
}

#[test]
fn code_that_does_not_load_says_why_and_where() {
    for (handler, file, source, error_type, message, frame) in [
        (None, "main.py", "x = (\n", "SyntaxError", "never closed (main.py, line 1)", "main.py\", line 1\n    x = ("),
        (None, "main.py", "import nowhere\n", "ModuleNotFoundError", "pip install -t . nowhere", "line 1, in <module>"),
        (None, "main.py", "\n1/0\n", "ZeroDivisionError", "division", "line 2, in <module>\n    1/0"),
        (None, "main.py", "import sys\nsys.exit(4)", "SystemExit", "exited with code 4", "line 2"),
        (None, "main.py", "x = 1", "HandlerNotFound", "main.py defines no function handler or main", ""),
        (None, "other.py", "x = 1", "HandlerNotFound", "none of main.py", ""),
        (Some("main.f"), "main.py", "f = 1", "HandlerNotFound", "f in main.py is not a function", ""),
        (Some("absent.f"), "main.py", "f = 1", "HandlerNotFound", "no file absent.py", ""),
    ] {
        let mut rig = Rig::start(Python, &[(file, source)]);
        let error = rig.specialise(handler).expect(source);
        assert_eq!(error.error_type, error_type, "{source}");
        assert!(error.error_message.contains(message), "{error:?}");
        assert!(error.stack_trace.join("\n").contains(frame), "{error:?}");
    }
}

#[test]
fn an_exception_shows_the_users_frames_and_the_shim_lives_on() {
    let mut rig = Rig::loaded(
        Python,
        &[
            (
                "main.py",
                "import deep, json\ndef handler(event):\n    if event == 1: return json.loads('{')\n    return deep.fall(event)\n",
            ),
            (
                "deep.py",
                "class Oops(Exception): pass\ndef fall(n):\n    if n == 0:\n        raise Oops('as asked')\n    return fall(n - 1) if n < 0 else n\n",
            ),
        ],
    );
    let answer = rig.call("0");
    assert_eq!((answer.error().error_type.as_str(), answer.error().error_message.as_str()), ("Oops", "as asked"));
    let [outer, inner] = answer.error().stack_trace.as_slice() else { panic!("{answer:?}") };
    assert!(outer.contains("main.py\", line 4, in handler\n    return deep.fall(event)"), "{outer}");
    assert!(inner.contains("deep.py\", line 4, in fall\n    raise Oops('as asked')"), "{inner}");
    assert_eq!(rig.call("1").error().stack_trace.len(), 1, "the library's own frames are left out");
    let deep = rig.call("-1");
    assert_eq!(deep.error().error_type, "RecursionError");
    assert_eq!(deep.error().stack_trace.len(), 51);
    assert_eq!(rig.call("5").value(), 5);
}

#[test]
fn whatever_is_raised_is_an_error_that_fits() {
    let mut rig = loaded(
        "import sys, asyncio\nclass Bad(Exception):\n    def __str__(self): raise ValueError\ndef handler(event):\n    \
         if event == 'exit': sys.exit(3)\n    if event == 'words': sys.exit('because')\n    if event == 'interrupt': raise KeyboardInterrupt\n    \
         if event == 'bad': raise Bad\n    if event == 'long': raise ValueError('\\x01' * 200000)\n    return event\n",
    );
    let exit = rig.call("\"exit\"");
    assert_eq!((exit.error().error_message.as_str(), exit.meta.exit_code), ("exited with code 3", Some(3)));
    assert_eq!(rig.call("\"words\"").meta.exit_code, Some(1));
    assert_eq!(rig.stderr(), "because\n");
    assert_eq!(rig.call("\"interrupt\"").error().error_type, "KeyboardInterrupt");
    assert_eq!(rig.call("\"bad\"").error().error_type, "Bad");
    assert!(rig.call("\"long\"").error().error_message.len() >= 1024);
    assert_eq!(rig.call("1").value(), 1);
}

#[test]
fn values_without_json_are_refused_and_others_kept_exactly() {
    let mut rig = loaded(
        "def handler(event):\n    return {'nan': float('nan'), 'set': {1}, 'key': {(1,): 2}, 'lone': '\\ud800', 'text': 'ü\\u2028',\n        \
         'big': 10**30}[event] if isinstance(event, str) else event\n",
    );
    for bad in ["nan", "set", "key"] {
        let answer = rig.call(format!("\"{bad}\""));
        assert_eq!(answer.error().error_type, "Runtime.MarshalError", "{bad}");
        assert!(answer.error().error_message.contains("no form in JSON"), "{answer:?}");
    }
    assert_eq!(rig.call("\"lone\"").body, br#""\ud800""#);
    assert_eq!(rig.call("\"text\"").body, "\"ü\u{2028}\"".as_bytes());
    assert_eq!(rig.call("\"big\"").body, b"1000000000000000000000000000000");
    let large = format!("[\"{}\"]", "x".repeat(6 << 20));
    assert!(rig.call(&large).body == large.as_bytes());
}

#[test]
fn what_is_printed_is_out_before_the_answer_and_never_in_it() {
    let mut rig = loaded(
        "import sys, logging, os\ndef handler(event):\n    print('no line end', end='')\n    sys.stderr.write('err')\n    \
         logging.warning('careful')\n    os.write(1, b'!')\n    return 1\n",
    );
    assert_eq!(rig.call("{}").body, b"1");
    assert!(rig.stdout().contains("no line end"), "{}", rig.stdout());
    assert_eq!(rig.stderr(), "errWARNING:root:careful\n");
}

#[test]
fn user_code_does_not_reach_the_socket_by_accident() {
    let mut rig = loaded(
        "import os, subprocess, sys\ndef handler(event):\n    os.closerange(3, 64)\n    if event == 'fork' and os.fork() == 0:\n        \
         return 'child'\n    listing = subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True).stdout\n    \
         sys.stdout = None\n    return [n for n in listing.split() if int(n) > 3]\n",
    );
    assert_eq!(rig.call("0").value(), json!([]));
    assert_eq!(rig.call("\"fork\"").value(), json!([]), "the forked child's answer is not sent");
    assert_eq!(rig.call("0").value(), json!([]));
}

#[test]
fn tasks_left_behind_do_not_run_in_the_next_call() {
    let mut rig = loaded(
        "import asyncio\nran = []\nasync def later():\n    await asyncio.sleep(0.01)\n    ran.append(1)\nasync def handler(event):\n    \
         asyncio.ensure_future(later())\n    await asyncio.sleep(event)\n    return [len(ran), id(asyncio.get_running_loop())]\n",
    );
    let first = rig.call("0").value();
    let second = rig.call("0.005").value();
    assert_eq!(first, second, "nothing ran, and the loop is the same");
    assert_eq!(rig.call("0.1").value()[0], 1, "only its own");
}

#[test]
fn a_death_is_a_death() {
    let mut rig = loaded("import os\ndef handler(event):\n    print('so far')\n    os._exit(3)\n");
    assert_eq!(rig.call_to_death("{}").code(), Some(3));
    assert_eq!(rig.stdout(), "so far\n");
    let mut rig = loaded("import ctypes\ndef handler(event):\n    ctypes.string_at(0)\n");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&rig.call_to_death("{}")), Some(libc::SIGSEGV));
    assert!(rig.stderr().contains("main.py\", line 3 in handler"), "says where: {}", rig.stderr());
}
