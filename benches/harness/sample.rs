//! A version as the benches use it that start no daemon.

use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, Owner};
use faasd::domain::time::Timestamp;
use uuid::Uuid;

/// Of a function that echoes, with the settings that one has by default. Its code is named, not kept.
pub fn version(runtime: Runtime) -> Version {
    Version {
        function_id: FunctionId(Uuid::from_u128(1)),
        number: 1,
        owner: Owner::new("bench"),
        function_name: "echo".into(),
        description: String::new(),
        runtime,
        handler: None,
        memory_mb: 128,
        auto_memory: false,
        timeout_ms: 30_000,
        env: Default::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    }
}
