//! Temporary
pub fn arguments(_: crate::domain::function::Runtime, compiler: &std::path::Path) -> Vec<String> {
    vec![compiler.display().to_string()]
}
