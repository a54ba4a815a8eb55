//! The functions of `examples/`, as they are.

use std::fs;
use std::path::Path;

use faasd::domain::function::Runtime;
use serde_json::json;

use super::Rig;

#[test]
fn every_example_that_needs_no_compiler_greets() {
    for (runtime, file) in
        [(Runtime::Python, "main.py"), (Runtime::Nodejs, "index.mjs"), (Runtime::Provided, "bootstrap")]
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("hello-{runtime}"));
        let source = fs::read_to_string(folder.join(file)).unwrap();
        let mut rig = Rig::loaded(runtime, &[(file, &source)]);
        for call in [1, 2] {
            let value = rig.call(r#"{"name": "Ada"}"#).value();
            assert_eq!((&value["message"], &value["call"]), (&json!("grüß dich, Ada!"), &json!(call)), "{runtime}");
        }
    }
}

#[test]
fn the_cpp_example_compiles_and_greets() {
    let source = include_str!("../../examples/hello-cpp/main.cpp");
    let mut rig = Rig::start(Runtime::Cpp, &[("main.cpp", source)]);
    let arguments = faasd::runtime::compile::arguments(Runtime::Cpp, Path::new("g++"));
    assert_eq!(rig.specialise_to(None, Some(arguments)), None);
    assert_eq!(rig.call("null").value(), json!(null), "{}", rig.stderr());
    assert_eq!(rig.stderr(), "", "no warnings");

    let mut built = Rig::start(Runtime::Cpp, &[]);
    fs::copy(rig.output().join("main"), built.task().join("main")).unwrap();
    assert_eq!(built.specialise(None), None);
    assert_eq!(built.call(r#"{"name": "A\"da"}"#).value()["message"], "grüß dich, A\"da!");
    assert_eq!(built.call("{}").value()["message"], "grüß dich, world!");
}
