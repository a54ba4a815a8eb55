//! `nodejs/shim.cjs`.

use faasd::domain::function::Runtime::Nodejs;
use serde_json::json;

use super::Rig;

fn loaded(source: &str) -> Rig {
    Rig::loaded(Nodejs, &[("index.js", source)])
}

#[test]
fn a_handler_is_called_with_event_and_context() {
    let mut rig = loaded(
        "let count = 0;\nexports.handler = async (event, context) => {\n  count++;\n  context.addLlmTokens(5); context.addLlmTokens(2);\n  \
         return [event, count, context.functionVersion, context.memoryMb, context.modelId, context.awsRequestId === process.env.JOB_ID,\n    \
         context.getRemainingTimeInMillis() > 0, process.env.GREETING, process.cwd().endsWith('task')];\n};\n",
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
    for (file, source, value) in [
        ("index.js", "exports.handler = (event) => event", json!(7)),
        ("main.cjs", "exports.main = () => {}", json!(null)),
        ("index.js", "module.exports = async (event) => event", json!(7)),
        ("index.mjs", "export const handler = async (event) => event", json!(7)),
        ("index.mjs", "export default (event) => event", json!(7)),
        ("index.mjs", "export default { handler: (event) => event }", json!(7)),
        ("index.mjs", "const x = await Promise.resolve(1); export const handler = () => x", json!(1)),
        ("index.js", "export const handler = (event) => event", json!(7)),
        (
            "index.js",
            "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, event), 2) }",
            json!(7),
        ),
        ("index.js", "exports.handler = (event, context, callback) => { callback(null, event); return 1 }", json!(7)),
        ("index.js", "exports.handler = (event, context) => { setTimeout(() => context.succeed(event), 2) }", json!(7)),
        ("index.js", "exports.handler = (event) => ({ then: (done) => done(event) })", json!(7)),
    ] {
        assert_eq!(Rig::loaded(Nodejs, &[(file, source)]).call("7").value(), value, "{source}");
    }
}

#[test]
fn handlers_are_found_where_they_are_named() {
    let files = [
        ("src/app.js", "exports.run = () => 'src'; exports.deep = { run: () => 'deep' }"),
        ("index.js", "exports.other = () => require('dependency')"),
        ("node_modules/dependency/index.js", "module.exports = 'dependency'"),
        ("mod/package.json", r#"{"type": "module"}"#),
        ("mod/a.js", "export const run = () => 'module'"),
    ];
    for (handler, value) in [
        ("src/app.run", "src"),
        ("src/app.deep.run", "deep"),
        ("other", "dependency"),
        ("index.other", "dependency"),
        ("mod/a.run", "module"),
    ] {
        let mut rig = Rig::start(Nodejs, &files);
        assert_eq!(rig.specialise(Some(handler)), None, "{handler}");
        assert_eq!(rig.call("{}").value(), value, "{handler}");
    }
}

#[test]
fn code_that_does_not_load_says_why_and_where() {
    for (handler, file, source, error_type, message, frame) in [
        (None, "index.js", "exports.x = 1;\nlet x = ;\n", "SyntaxError", "Unexpected token", "index.js:2\nlet x = ;"),
        (
            None,
            "index.mjs",
            "export const x = 1;\nlet y = ;\n",
            "SyntaxError",
            "Unexpected token",
            "index.mjs:2\nlet y = ;",
        ),
        (None, "index.js", "exports.x = require('nowhere')", "Error", "Cannot find module 'nowhere'", "index.js:1"),
        (None, "index.mjs", "export const x = 1;\nnull.x;\n", "TypeError", "Cannot read properties", "index.mjs:2"),
        (None, "index.js", "exports.x = 1", "HandlerNotFound", "index.js exports no function handler or main", ""),
        (None, "other.js", "exports.x = 1", "HandlerNotFound", "neither index.js", ""),
        (Some("absent.f"), "index.js", "exports.f = 1", "HandlerNotFound", "no file absent.js", ""),
    ] {
        let mut rig = Rig::start(Nodejs, &[(file, source)]);
        let error = rig.specialise(handler).expect(source);
        assert_eq!(error.error_type, error_type, "{error:?}");
        assert!(error.error_message.contains(message), "{error:?}");
        assert!(error.stack_trace.join("\n").contains(frame), "{error:?}");
    }
}

#[test]
fn whatever_is_thrown_is_an_error_and_the_shim_lives_on() {
    let mut rig = loaded(
        "class Oops extends Error { constructor(m) { super(m); this.name = 'Oops' } }\nexports.handler = (event, context, callback) => {\n  \
         if (event === 'throw') throw new Oops('as asked');\n  if (event === 'reject') return Promise.reject(new Oops('as asked'));\n  \
         if (event === 'call') return callback(new Oops('as asked'));\n  if (event === 'later') return setTimeout(() => { throw new Oops('as asked') }, 1);\n  \
         if (event === 'unhandled') return void Promise.reject(new Oops('as asked'));\n  if (event === 'string') throw 'words';\n  \
         if (event === 'loop') { const a = {}; a.a = a; return callback(null, a) }\n  if (event === 'big') return callback(null, 1n);\n  \
         if (event === 'long') throw new Oops('\\x01'.repeat(200000));\n  callback(null, event);\n};\n",
    );
    for way in ["throw", "reject", "call", "later", "unhandled"] {
        let answer = rig.call(format!("\"{way}\""));
        assert_eq!(
            (answer.error().error_type.as_str(), answer.error().error_message.as_str()),
            ("Oops", "as asked"),
            "{way}"
        );
        assert!(answer.error().stack_trace[0].contains("index.js:"), "{way} {answer:?}");
        assert!(!answer.error().stack_trace.iter().any(|line| line.contains("shim.cjs")), "{answer:?}");
    }
    assert_eq!(rig.call("\"string\"").error().error_message, "words");
    for bad in ["\"loop\"", "\"big\""] {
        assert_eq!(rig.call(bad).error().error_type, "Runtime.MarshalError");
    }
    assert!(rig.call("\"long\"").error().error_message.len() >= 1024);
    assert_eq!(rig.call("5").value(), 5);
    let large = format!("\"{}\"", "x".repeat(6 << 20));
    assert!(rig.call(&large).body == large.as_bytes());
}

#[test]
fn what_is_printed_is_out_before_the_answer_and_never_in_it() {
    let mut rig = loaded(
        "exports.handler = () => { console.log('out'); console.error('err'); process.stdout.write('end'); return 1 }",
    );
    assert_eq!(rig.call("{}").body, b"1");
    assert_eq!((rig.stdout().as_str(), rig.stderr().as_str()), ("out\nend", "err\n"));
}

#[test]
fn children_do_not_have_the_socket() {
    let mut rig = loaded(
        "const { execFileSync } = require('child_process');\nexports.handler = () => \
         execFileSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' }).includes('/3 ->') ? \
         execFileSync('readlink', ['/proc/self/fd/3'], { encoding: 'utf8' }) : 'none';",
    );
    let found = rig.call("{}").value();
    assert!(!found.as_str().unwrap().contains("socket"), "{found}");
}

#[test]
fn a_module_without_exports_runs_as_a_script_each_time() {
    let mut rig = loaded(
        "const input = JSON.parse(process.env.PAYLOAD);\nif (input === 3) process.exit(3);\nconsole.log('working');\n\
         console.log(JSON.stringify({ doubled: input * 2, id: process.env.JOB_ID.length }));\n",
    );
    for n in [1, 21] {
        assert_eq!(rig.call(n.to_string()).value(), json!({ "doubled": n * 2, "id": 36 }));
    }
    assert_eq!(rig.stdout(), "working\nworking\n", "lines before the value are log");
    let failed = rig.call("3");
    assert_eq!((failed.error().error_message.as_str(), failed.meta.exit_code), ("exited with code 3", Some(3)));

    let mut rig = loaded(
        "let text = ''; process.stdin.on('data', d => text += d).on('end', () => console.log('got ' + text.length));",
    );
    assert_eq!(
        rig.call(format!("\"{}\"", "x".repeat(500_000))).value(),
        "got 500002",
        "large payloads by stdin, text as a string"
    );
}

#[test]
fn a_death_is_a_death() {
    let mut rig = loaded("exports.handler = () => { console.log('so far'); process.exit(3) }");
    assert_eq!(rig.call_to_death("{}").code(), Some(3));
    assert_eq!(rig.stdout(), "so far\n");
}
